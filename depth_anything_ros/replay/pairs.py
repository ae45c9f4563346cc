# SPDX-License-Identifier: Apache-2.0
"""Images of one topic of a bag, each with what a depth sensor said at its time."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Sequence

import numpy as np
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image, LaserScan

from ..messages.cdr import MessageError, RawImage, read_compressed_image, read_header, read_image
from ..messages.compressed import decompressed_depth
from ..messages.ranges import METRES, cloud_points, scan_points
from ..stream.logs import DEPTH_TYPES, KEPT_NS, SENSOR_TYPES, Lately, info_topic_of
from ..stream.transforms import parse_transforms
from .bag_input import BagInput
from .cameras import COMPRESSED, IMAGE, CameraTopics
from .feed import LOOK_AHEAD_NS, Context, looked_ahead
from .messages import TF_STATIC, Recorded

_SAID_ONCE = (TF_STATIC, "camera_info")  # perhaps only when the recording began


def read_depth_image(cdr: bytes, compressed: bool) -> RawImage:
    """A serialised depth image, as it is or as compressedDepth.

    Raises:
        MessageError: the bytes are not one.
    """
    return decompressed_depth(read_compressed_image(cdr)) if compressed else read_image(cdr)


def depth_images(bag: BagInput) -> dict[str, RawImage]:
    """Topics of depth images, by what their first message is, with that message; compressedDepth where there is no raw one."""
    found = {}
    for name, topic in sorted(bag.topics.items()):
        compressed = topic.type == COMPRESSED and name.endswith("/compressedDepth")
        if "depth" not in name or not (compressed or topic.type == IMAGE) or name.removesuffix("/compressedDepth") in found:
            continue
        first = next(bag.messages(topics=[name]), None)
        with contextlib.suppress(MessageError):
            image = first and read_depth_image(first.cdr, compressed)
            if image and image.encoding in METRES:
                found[name] = image
    return found


class Pairs:
    """A pass through a bag.

    Attributes:
        sensor: where the sensor's messages are, and its calibration if they are images.
        gives_images: whether the sensor's messages are depth images; else they are points.
        context: calibration and transforms, of the time that the pass has come to.
        left_out: of images that gave nothing, by kind: the first reason, and how many.
    """

    def __init__(self, bag: BagInput, camera: CameraTopics, sensor: str, max_offset: float, transforms: Sequence[str]):
        self._bag, self._camera, self._max_offset = bag, camera, max_offset
        self.sensor = CameraTopics(sensor, False, info_topic_of(sensor))
        self._kind = SENSOR_TYPES[bag.topics[sensor].type]
        self.gives_images = self._kind in DEPTH_TYPES
        self.context = Context(bag, [camera, self.sensor], parse_transforms(transforms))
        self.left_out: dict[str, tuple[str, int]] = {}
        self._lately: Lately[bytes] = Lately()

    def images(self, start: float, end: float, every: int) -> Iterator[Recorded]:
        """Each n-th image recorded from `start` to `end` seconds after the bag's beginning; `nearest` is of its time."""
        first_ns, end_ns = (
            self._bag.start_ns + round(seconds * 1e9) if math.isfinite(seconds) else 2**62 for seconds in (start, end)
        )
        before_ns = max(self._bag.start_ns, first_ns - KEPT_NS)
        once = {name for name in self.context.topics if name.endswith(_SAID_ONCE)}
        for recorded in self._bag.messages(0, before_ns, once):
            self.context.add(recorded)
        topics, number = {self._camera.image, self.sensor.image, *self.context.topics}, 0
        for recorded in looked_ahead(self._bag.messages(before_ns, end_ns + LOOK_AHEAD_NS, topics), self._keep):
            if recorded.topic == self._camera.image and first_ns <= recorded.time_ns < end_ns:
                if number % every == 0:
                    yield recorded
                number += 1

    def nearest(self, stamp_ns: int) -> bytes:
        """The sensor's message whose stamp is the nearest.

        Raises:
            MessageError: none is near enough.
        """
        found = self._lately.nearest(stamp_ns)
        if found is None or abs(found[0] - stamp_ns) > self._max_offset * 1e9:
            near = f"the nearest is {abs(found[0] - stamp_ns) / 1e9:.3f} s away" if found else "there is none"
            raise MessageError(f"nothing on '{self.sensor.image}' within {self._max_offset:g} s ({near})")
        return found[1]

    def image(self, cdr: bytes) -> RawImage:
        """The sensor's depth image.

        Raises:
            MessageError: it is damaged.
        """
        return read_depth_image(cdr, self._kind is not Image)

    def points(self, cdr: bytes) -> tuple[str, np.ndarray]:
        """The frame and the points (N, 3) of a cloud or a scan.

        Raises:
            MessageError: it is damaged.
        """
        try:
            message = deserialize_message(cdr, self._kind)
        except Exception as error:  # rclpy has its own kinds
            raise MessageError(f"a damaged message on '{self.sensor.image}': {type(error).__name__}") from error
        return message.header.frame_id, scan_points(message) if self._kind is LaserScan else cloud_points(message)

    def in_frame(self, points: np.ndarray, target: str, source: str, stamp_ns: int) -> np.ndarray:
        """Points (N, 3) of one frame in another.

        Raises:
            TransformError: the way from one to the other is not known.
        """
        if target.lstrip("/") == source.lstrip("/"):
            return points
        return self.context.lookup(target, source, stamp_ns).apply(points)

    def leave_out(self, why: Exception) -> None:
        """Count an image that gave nothing; reasons that differ in their numbers are of one kind."""
        kind = re.sub(r"[\d.]+", "#", str(why))
        text, count = self.left_out.get(kind, (str(why), 0))
        self.left_out[kind] = text, count + 1

    def _keep(self, recorded: Recorded) -> None:
        self.context.add(recorded)
        if recorded.topic != self.sensor.image:
            return
        try:
            stamp_ns = read_header(recorded.cdr).stamp_ns
        except MessageError as error:
            self.context.problems.add(f"'{self.sensor.image}': {error}")
            return
        self._lately.add(stamp_ns, recorded.cdr, len(recorded.cdr))
