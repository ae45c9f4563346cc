# SPDX-License-Identifier: Apache-2.0
"""The sensor whose true distances give depth its scale: a cloud, a laser scan, or a depth image with its camera_info."""

from __future__ import annotations

from rclpy.exceptions import InvalidTopicNameException
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.validate_topic_name import validate_topic_name
from sensor_msgs.msg import CameraInfo

from ..stream.logs import DEPTH_TYPES, SENSOR_TYPES, SensorLog
from ..stream.settings import SettingsError


class RangeSensor(SensorLog):
    """Reads one topic, whatever of the types is published there. Any thread may ask; `refresh` is the spinning one's."""

    def __init__(self, node: Node, topic: str):
        try:
            validate_topic_name(topic)
            super().__init__(node.resolve_topic_name(topic))
        except InvalidTopicNameException as error:
            raise SettingsError(f"scale.topic: {str(error).splitlines()[0]}") from error
        self.problem = f"nobody publishes '{self.topic}'"
        self._node = node
        self._subscriptions: list = []
        self._now: tuple = ()  # type and reliability that are subscribed

    def refresh(self) -> None:
        """Subscribe, or subscribe anew where the publishers have changed."""
        offers = self._node.get_publishers_info_by_topic(self.topic)
        if not offers:
            self.problem = f"nobody publishes '{self.topic}'"
            return
        kind = SENSOR_TYPES.get(offers[0].topic_type)
        if kind is None:
            self.problem = f"'{self.topic}' is a {offers[0].topic_type}, expected one of {', '.join(SENSOR_TYPES)}"
            return
        infos = self._node.get_publishers_info_by_topic(self.info_topic) if kind in DEPTH_TYPES else []
        now = kind, _all_reliable(offers), _all_reliable(infos)
        if self._now != now:
            self.close()
            self._now = now
            self._subscribe(kind, self.topic, self.add, now[1])
            if kind in DEPTH_TYPES:
                self._subscribe(CameraInfo, self.info_topic, self.add_info, now[2])
        self.problem = ""

    def close(self) -> None:
        """Unsubscribe, and forget what came."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions, self._now = [], ()
        self.clear()

    def _subscribe(self, kind: type, topic: str, callback, reliable: bool) -> None:
        policy = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        qos = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=5, reliability=policy)
        self._subscriptions.append(self._node.create_subscription(kind, topic, callback, qos))


def _all_reliable(offers: list) -> bool:
    return bool(offers) and all(offer.qos_profile.reliability == ReliabilityPolicy.RELIABLE for offer in offers)
