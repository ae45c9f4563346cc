# SPDX-License-Identifier: Apache-2.0
"""The topics of a bag as publishers: recorded bytes as they are, with the quality of service that was recorded."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from importlib import import_module

from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, HistoryPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rosbags.interfaces import QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

from ..replay.bag_input import BagInput
from ..replay.messages import Recorded, Topic

_DEPTH = 10  # where the bag does not say: what discovery tells a recorder is without it
_LATCHED = 1000  # messages of a transient local topic that are kept for late readers, of however many publishers they were
_LOSSLESS = 100  # what a reader may lag behind when a bag is played as fast as the depth node can
_FOREVER = 2**31 - 1
_ACKNOWLEDGED = 5.0  # seconds that a reader may take to acknowledge a message
_OF_IMAGES = {f"sensor_msgs/msg/{name}" for name in ("Image", "CompressedImage", "CameraInfo", "PointCloud2", "LaserScan")}


class BagTopics:
    """Publishers of a bag's topics, made at once so that readers can meet them before anything is played.

    Attributes:
        publishers: by topic.
        missing: topics whose type is not installed, with the type.
    """

    def __init__(self, node: Node, bag: BagInput, names: Iterable[str], lossless: bool):
        """`lossless`: offered reliably, and of what may belong to an image, the next only when the one before has arrived."""
        self.publishers: dict[str, Publisher] = {}
        self.missing: dict[str, str] = {}
        self._node, self._lossless = node, lossless
        self._slow: set[str] = set()  # topics with a reader that does not acknowledge
        for name in sorted(names):
            kind = message_class(bag.topics[name].type)
            if kind is None:
                self.missing[name] = bag.topics[name].type
                continue
            qos = publisher_qos(bag.topics[name], bag.counts[name], lossless)
            overrides = QoSOverridingOptions.with_default_policies()
            self.publishers[name] = node.create_publisher(kind, name, qos, qos_overriding_options=overrides)

    @property
    def latched(self) -> set[str]:
        """Topics of which late readers get what was published before."""
        kept = DurabilityPolicy.TRANSIENT_LOCAL
        return {name for name, publisher in self.publishers.items() if publisher.qos_profile.durability == kept}

    def publish(self, recorded: Recorded) -> None:
        """Publish the bytes of a message."""
        self.wait_arrived([recorded.topic])
        self.publishers[recorded.topic].publish(recorded.cdr)

    def wait_arrived(self, names: Collection[str]) -> None:
        """Lossless: until every reliable reader has what was published; one that takes too long is not waited for again.

        Only of topics of depth 1: with a longer history Fast DDS asks for acknowledgements every 3 s only.
        """
        for name in names if self._lossless else ():
            if self.publishers[name].qos_profile.depth > 1:
                continue
            end = time.monotonic() + _ACKNOWLEDGED
            while name not in self._slow and not self.publishers[name].wait_for_all_acked(Duration(seconds=0.2)):
                if not self._node.context.ok():
                    raise ExternalShutdownException
                if time.monotonic() > end:
                    self._slow.add(name)
                    self._node.get_logger().warning(
                        f"a reader of '{name}' does not take what is published: not waiting for the topic's readers any more"
                    )

    def readers(self, name: str) -> list[tuple[str, str, ReliabilityPolicy]]:
        """Namespace, name and reliability of each node that reads a topic."""
        found = self._node.get_subscriptions_info_by_topic(name)
        return sorted((each.node_namespace, each.node_name, each.qos_profile.reliability) for each in found)

    def matched(self) -> tuple:
        """Who reads what, and how many of them are connected: the same again and again once everybody has met."""
        return tuple(
            (name, publisher.get_subscription_count(), *self.readers(name)) for name, publisher in self.publishers.items()
        )


def message_class(kind: str) -> type | None:
    """The class of a message type such as "sensor_msgs/msg/Image"; None if it is not installed."""
    *module, name = kind.split("/")
    try:
        return getattr(import_module(".".join(module)), name)
    except (ImportError, AttributeError, ValueError):
        return None


def publisher_qos(topic: Topic, messages: int, lossless: bool = False) -> QoSProfile:
    """What the first of a topic's publishers offered; without one: reliable, depth 10, /tf_static for late readers, too.

    A lifespan is left out: what is played must not expire while somebody is waited for.

    Args:
        messages: how many of the topic are in the bag.
        lossless: reliable whatever the publisher offered, which best-effort readers meet, too; and depth 1 for what may
            belong to an image.
    """
    result = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=_DEPTH, reliability=ReliabilityPolicy.RELIABLE)
    if not topic.qos:
        if topic.name.endswith("/tf_static"):
            result.durability = DurabilityPolicy.TRANSIENT_LOCAL
    else:
        offered = topic.qos[0]
        if offered.history == QosHistory.KEEP_ALL:
            result.history = HistoryPolicy.KEEP_ALL
        result.depth = offered.depth if 0 < offered.depth < _FOREVER else _DEPTH
        if offered.reliability == QosReliability.BEST_EFFORT and not lossless:
            result.reliability = ReliabilityPolicy.BEST_EFFORT
        if offered.durability == QosDurability.TRANSIENT_LOCAL:
            result.durability = DurabilityPolicy.TRANSIENT_LOCAL
        if offered.liveliness == QosLiveliness.MANUAL_BY_TOPIC:
            result.liveliness = LivelinessPolicy.MANUAL_BY_TOPIC
        result.deadline = _duration(offered.deadline)
        result.liveliness_lease_duration = _duration(offered.liveliness_lease_duration)
    if lossless:
        result.depth = 1 if topic.type in _OF_IMAGES else max(result.depth, _LOSSLESS)
    if result.durability == DurabilityPolicy.TRANSIENT_LOCAL:
        result.depth = max(result.depth, min(messages, _LATCHED))
    return result


def _duration(time: QosTime) -> Duration:
    """0, which means that nothing is promised, for infinity."""
    return Duration(seconds=time.sec, nanoseconds=time.nsec) if time.sec < _FOREVER else Duration()
