# SPDX-License-Identifier: Apache-2.0
"""The sensor whose true distances give depth its scale: a cloud, a laser scan, or a depth image with its camera_info."""

from __future__ import annotations

import threading
from collections import deque

import numpy as np
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, LaserScan, PointCloud2

from ..messages.ranges import cloud_points, depth_points, scan_points

_KEPT = 10  # messages to choose from by time
_KINDS = {f"sensor_msgs/msg/{kind.__name__}": kind for kind in (PointCloud2, LaserScan, Image)}


class RangeSensor:
    """Reads one topic, whatever of the three types is published there. Any thread may ask; `refresh` is the spinning one's.

    Attributes:
        topic: its full name.
        problem: why nothing can be read from it; empty if there is nothing to say.
    """

    def __init__(self, node: Node, topic: str):
        self.topic = node.resolve_topic_name(topic)
        self.problem = f"nobody publishes '{self.topic}'"
        self._node = node
        self._subscriptions: list = []
        self._now: tuple = ()  # type and reliability that are subscribed
        self._messages: deque = deque(maxlen=_KEPT)
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
        reliable = all(offer.qos_profile.reliability == ReliabilityPolicy.RELIABLE for offer in offers)
        if self._now != (kind, reliable):
            self.close()
            self._now = kind, reliable
            self._subscribe(kind, self.topic, self._keep, reliable)
            if kind is Image:
                self._subscribe(CameraInfo, self.topic.rsplit("/", 1)[0] + "/camera_info", self._keep_info, reliable)
        self.problem = ""

    def close(self) -> None:
        """Unsubscribe, and forget what came."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions, self._now = [], ()
        with self._lock:
            self._messages.clear()
            self._info = None

    def at(self, stamp_ns: int, max_offset: float) -> tuple[str, np.ndarray] | None:
        """(frame, points (N, 3)) of the message nearest in time, or None if all are farther away than `max_offset` seconds.

        Raises:
            MessageError, CameraError: the message cannot be true.
        """
        with self._lock:
            stamped = [(abs(_stamp(message) - stamp_ns), -number, message) for number, message in enumerate(self._messages)]
            info = self._info
        if not stamped:
            return None
        offset, _, message = min(stamped, key=lambda entry: entry[:2])
        if offset > max_offset * 1e9 or isinstance(message, Image) and info is None:
            return None
        if isinstance(message, PointCloud2):
            points = cloud_points(message)
        elif isinstance(message, LaserScan):
            points = scan_points(message)
        else:
            points = depth_points(message, info)
        return message.header.frame_id, points

    def _subscribe(self, kind: type, topic: str, callback, reliable: bool) -> None:
        policy = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        qos = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=5, reliability=policy)
        self._subscriptions.append(self._node.create_subscription(kind, topic, callback, qos))

    def _keep(self, message) -> None:
        with self._lock:
            self._messages.append(message)

    def _keep_info(self, info: CameraInfo) -> None:
        with self._lock:
            self._info = info


def _stamp(message) -> int:
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
