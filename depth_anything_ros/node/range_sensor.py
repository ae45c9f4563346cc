# SPDX-License-Identifier: Apache-2.0
"""The sensor whose true distances give depth its scale: a cloud, a laser scan, or a depth image with its camera_info."""

from __future__ import annotations

import threading
from collections import deque

import numpy as np
from rclpy.exceptions import InvalidTopicNameException
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.validate_topic_name import validate_topic_name
from sensor_msgs.msg import CameraInfo, Image, LaserScan, PointCloud2

from ..messages.cdr import MessageError
from ..messages.ranges import cloud_points, depth_points, scan_points
from .parameters import SettingsError

# Messages are chosen by an image's stamp after the network has run, which takes seconds on a slow machine.
_KEPT_NS, _KEPT_BYTES = 10_000_000_000, 128 << 20
_KINDS = {f"sensor_msgs/msg/{kind.__name__}": kind for kind in (PointCloud2, LaserScan, Image)}


class RangeSensor:
    """Reads one topic, whatever of the three types is published there. Any thread may ask; `refresh` is the spinning one's.

    Attributes:
        topic: its full name.
        problem: why nothing can be read from it; empty if there is nothing to say.
    """

    def __init__(self, node: Node, topic: str):
        try:
            validate_topic_name(topic)
            self.topic = node.resolve_topic_name(topic)
        except InvalidTopicNameException as error:
            raise SettingsError(f"scale.topic: {str(error).splitlines()[0]}") from error
        self.problem = f"nobody publishes '{self.topic}'"
        self._info_topic = self.topic.rsplit("/", 1)[0] + "/camera_info"
        self._node = node
        self._subscriptions: list = []
        self._now: tuple = ()  # type and reliability that are subscribed
        self._messages: deque = deque()
        self._bytes = 0
        self._info: CameraInfo | None = None
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Subscribe, or subscribe anew where the publishers have changed."""
        offers = self._node.get_publishers_info_by_topic(self.topic)
        if not offers:
            self.problem = f"nobody publishes '{self.topic}'"
            return
        kind = _KINDS.get(offers[0].topic_type)
        if kind is None:
            self.problem = f"'{self.topic}' is a {offers[0].topic_type}, expected one of {', '.join(_KINDS)}"
            return
        infos = self._node.get_publishers_info_by_topic(self._info_topic) if kind is Image else []
        now = kind, _all_reliable(offers), _all_reliable(infos)
        if self._now != now:
            self.close()
            self._now = now
            self._subscribe(kind, self.topic, self._keep, now[1])
            if kind is Image:
                self._subscribe(CameraInfo, self._info_topic, self._keep_info, now[2])
        self.problem = ""

    def close(self) -> None:
        """Unsubscribe, and forget what came."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions, self._now = [], ()
        with self._lock:
            self._messages.clear()
            self._bytes, self._info = 0, None

    def at(self, stamp_ns: int, max_offset: float) -> tuple[str, np.ndarray]:
        """(frame, points (N, 3)) of the message nearest in time.

        Raises:
            MessageError: there is none within `max_offset` seconds, or it cannot be true. CameraError: nor its calibration.
        """
        with self._lock:
            message = min(self._messages, key=lambda message: abs(_stamp(message) - stamp_ns), default=None)
            info = self._info
        if message is None or abs(_stamp(message) - stamp_ns) > max_offset * 1e9:
            raise MessageError(f"nothing within {max_offset:g} s of the image")
        if isinstance(message, PointCloud2):
            points = cloud_points(message)
        elif isinstance(message, LaserScan):
            points = scan_points(message)
        elif info is None:
            raise MessageError(f"a depth image, but no camera_info on '{self._info_topic}'")
        else:
            points = depth_points(message, info)
        return message.header.frame_id, points

    def _subscribe(self, kind: type, topic: str, callback, reliable: bool) -> None:
        policy = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        qos = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=5, reliability=policy)
        self._subscriptions.append(self._node.create_subscription(kind, topic, callback, qos))

    def _keep(self, message) -> None:
        with self._lock:
            kept = self._messages
            if kept and _stamp(message) < _stamp(kept[-1]) - 1_000_000_000:  # a bag that begins anew
                kept.clear()
                self._bytes = 0
            kept.append(message)
            self._bytes += _size(message)
            while len(kept) > 1 and (_stamp(message) - _stamp(kept[0]) > _KEPT_NS or self._bytes > _KEPT_BYTES):
                self._bytes -= _size(kept.popleft())

    def _keep_info(self, info: CameraInfo) -> None:
        with self._lock:
            self._info = info


def _all_reliable(offers: list) -> bool:
    return bool(offers) and all(offer.qos_profile.reliability == ReliabilityPolicy.RELIABLE for offer in offers)


def _stamp(message) -> int:
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec


def _size(message) -> int:
    return 4 * len(message.ranges) if isinstance(message, LaserScan) else len(message.data)
