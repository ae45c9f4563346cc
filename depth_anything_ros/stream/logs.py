# SPDX-License-Identifier: Apache-2.0
"""Messages that are kept until an image asks for those of its own time. Any thread may add, any may ask."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, LaserScan, PointCloud2

from ..messages.cdr import MessageError
from ..messages.compressed import decompressed_depth
from ..messages.ranges import cloud_points, depth_points, scan_points

_INFOS = 1024  # of fast cameras, more than come until an image is looked at
_SAME_NS = 1_000_000_000  # stamps that are so close may be of one clock
# Messages are chosen by an image's stamp after the network has run, which takes seconds on a slow machine.
KEPT_NS, _KEPT_BYTES = 10_000_000_000, 128 << 20
T = TypeVar("T")

SENSOR_TYPES = {f"sensor_msgs/msg/{kind.__name__}": kind for kind in (PointCloud2, LaserScan, Image, CompressedImage)}
DEPTH_TYPES = (Image, CompressedImage)
"""Those of them that are depth images and need a calibration; compressed: compressedDepth."""


def info_topic_of(depth_topic: str) -> str:
    """Where the calibration of a depth image is, by image_transport's convention."""
    return depth_topic.removesuffix("/compressedDepth").rsplit("/", 1)[0] + "/camera_info"


class InfoLog:
    """The newest calibrations of one camera."""

    def __init__(self):
        self._infos: dict[int, CameraInfo] = {}  # by stamp, the newest at the end
        self._lock = threading.Lock()

    def add(self, info: CameraInfo) -> None:
        """Take in the next one."""
        with self._lock:
            stamp_ns = stamp_of(info)
            self._infos.pop(stamp_ns, None)
            self._infos[stamp_ns] = info
            if len(self._infos) > _INFOS:
                del self._infos[next(iter(self._infos))]

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._infos.clear()

    def at(self, stamp_ns: int) -> CameraInfo | None:
        """The camera_info of an image: that of its stamp, else the nearest, or the newest where stamps are of another clock.

        None if none has come.
        """
        with self._lock:
            newest = next(reversed(self._infos), None)
            if newest is None or stamp_ns in self._infos:
                return self._infos.get(stamp_ns)
            if abs(newest - stamp_ns) <= _SAME_NS:
                return self._infos[min(self._infos, key=lambda other: abs(other - stamp_ns))]
            return self._infos[newest]


class Lately(Generic[T]):
    """The last seconds of something with stamps."""

    def __init__(self):
        self._kept: deque[tuple[int, T, int]] = deque()  # stamp, what it is, its bytes
        self._bytes = 0

    def add(self, stamp_ns: int, what: T, size: int) -> None:
        """Take in the next one of so many bytes; old ones go."""
        kept = self._kept
        if kept and stamp_ns < kept[-1][0] - _SAME_NS:  # a bag that begins anew
            self.clear()
        kept.append((stamp_ns, what, size))
        self._bytes += size
        while len(kept) > 1 and (stamp_ns - kept[0][0] > KEPT_NS or self._bytes > _KEPT_BYTES):
            self._bytes -= kept.popleft()[2]

    def nearest(self, stamp_ns: int) -> tuple[int, T] | None:
        """(stamp, what it is) of the one that is nearest in time."""
        found = min(self._kept, key=lambda each: abs(each[0] - stamp_ns), default=None)
        return found and found[:2]

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()
        self._bytes = 0


class SensorLog:
    """The last seconds of a range sensor: clouds, laser scans, or depth images with their calibration.

    Attributes:
        topic: its full name.
        info_topic: of the calibration that belongs to depth images.
        problem: why nothing can be had from it; empty if there is nothing to say.
    """

    def __init__(self, topic: str):
        self.topic, self.problem = topic, ""
        self.info_topic = info_topic_of(topic)
        self._messages: Lately = Lately()
        self._info: CameraInfo | None = None
        self._lock = threading.Lock()

    def add(self, message: PointCloud2 | LaserScan | Image | CompressedImage) -> None:
        """Take in the next one; old ones go."""
        with self._lock:
            self._messages.add(stamp_of(message), message, _size(message))

    def add_info(self, info: CameraInfo) -> None:
        """Take in the calibration of depth images."""
        with self._lock:
            self._info = info

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._messages.clear()
            self._info = None

    def at(self, stamp_ns: int, max_offset: float) -> tuple[str, np.ndarray]:
        """(frame, points (N, 3)) of the message nearest in time.

        Raises:
            MessageError: there is none within `max_offset` seconds, or it cannot be true. CameraError: nor its calibration.
        """
        with self._lock:
            found, info = self._messages.nearest(stamp_ns), self._info
        if found is None or abs(found[0] - stamp_ns) > max_offset * 1e9:
            raise MessageError(f"nothing within {max_offset:g} s of the image")
        message = found[1]
        if isinstance(message, PointCloud2):
            points = cloud_points(message)
        elif isinstance(message, LaserScan):
            points = scan_points(message)
        elif info is None:
            raise MessageError(f"a depth image, but no camera_info on '{self.info_topic}'")
        else:
            image = decompressed_depth(message) if isinstance(message, CompressedImage) else message
            points = depth_points(image, info)
        return message.header.frame_id, points


def stamp_of(message) -> int:
    """Nanoseconds of a message's header."""
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec


def _size(message) -> int:
    return 4 * len(message.ranges) if isinstance(message, LaserScan) else len(message.data)
