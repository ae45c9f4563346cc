# SPDX-License-Identifier: Apache-2.0
"""The subscriptions of one camera: images into a mailbox, calibrations at hand, met again however the camera comes back."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

from .mailbox import Mailbox
from .statistics import Statistics

_KEPT_INFOS = 32


@dataclass(frozen=True)
class Arrival:
    """A serialised image, and the monotonic time at which it came in."""

    cdr: bytes
    compressed: bool
    time: float


class CameraInput:
    """Reads `image` (or its compressed twin) and `camera_info`.

    Reliability follows the publisher's offer, since a best-effort reader of a stock Fast DDS camera loses nearly every
    image and a reliable one never meets a best-effort camera. The standard parameters
    `qos_overrides.<topic>.subscription.reliability` and `.depth` overrule it.
    """

    def __init__(self, node: LifecycleNode, transport: str, statistics: Statistics):
        self.mailbox: Mailbox[Arrival] = Mailbox()
        self.mismatch = ""
        self._node, self._transport, self._statistics = node, transport, statistics
        self.topics = _topics(node)
        self._subscriptions: dict[str, tuple[object, QoSProfile]] = {}
        self._infos: deque[CameraInfo] = deque(maxlen=_KEPT_INFOS)
        self._lock = threading.Lock()

    @property
    def image_topic(self) -> str:
        """The topic that images are read from at this moment."""
        return self.topics["compressed" if "compressed" in self._subscriptions else "image"]

    @property
    def rectified(self) -> bool:
        """Whether the images are rectified, by image_pipeline's convention: `rect` in the topic's last two names."""
        return any("rect" in name.split("_") for name in self.topics["image"].split("/")[-2:])

    def refresh(self) -> None:
        """Subscribe, or subscribe anew where the publishers and their offers have changed. Cheap; call a few times a second."""
        offers = {name: self._offers(name) for name in self.topics}
        compressed = self._transport == "compressed" or (
            self._transport == "auto" and not offers["image"] and bool(offers["compressed"])
        )
        wanted = {"compressed" if compressed else "image", "camera_info"}
        for name in [name for name in self._subscriptions if name not in wanted]:
            self._drop(name)
        for name in wanted:
            qos = self._qos(name, offers[name])
            current = self._subscriptions.get(name)
            if current is None or current[1].reliability != qos.reliability:
                self._drop(name)
                self._subscriptions[name] = (self._subscribe(name, qos), qos)

    def close(self) -> None:
        """Unsubscribe."""
        for name in list(self._subscriptions):
            self._drop(name)

    def info_at(self, stamp_ns: int) -> CameraInfo | None:
        """The camera_info of an image: the one with its stamp, else the newest; None if none has come."""
        with self._lock:
            for info in reversed(self._infos):
                if info.header.stamp.sec * 1_000_000_000 + info.header.stamp.nanosec == stamp_ns:
                    return info
            return self._infos[-1] if self._infos else None

    def describe_publishers(self) -> str:
        """Who publishes images, for a person who wonders why none come."""
        offers = self._offers("image") + self._offers("compressed")
        if not offers:
            return f"no publisher on '{self.topics['image']}' or '{self.topics['compressed']}'"
        kinds = ", ".join(sorted(offer.name.lower() for offer in offers))
        return f"publishers on '{self.image_topic}': {len(offers)} ({kinds})"

    def _offers(self, name: str) -> list[ReliabilityPolicy]:
        return [info.qos_profile.reliability for info in self._node.get_publishers_info_by_topic(self.topics[name])]

    def _qos(self, name: str, offers: list[ReliabilityPolicy]) -> QoSProfile:
        """What the user set, else reliable if every publisher offers it. Before there is one: best effort, which meets all."""
        prefix = f"qos_overrides.{self.topics[name]}.subscription."
        reliability = self._parameter(prefix + "reliability", "auto")
        depth = self._parameter(prefix + "depth", 1)
        if reliability == "auto":
            reliable = bool(offers) and all(offer == ReliabilityPolicy.RELIABLE for offer in offers)
        else:
            reliable = reliability == "reliable"
        policy = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=max(1, int(depth)), reliability=policy)

    def _parameter(self, name: str, default):
        if not self._node.has_parameter(name):
            self._node.declare_parameter(name, default)
        return self._node.get_parameter(name).value

    def _subscribe(self, name: str, qos: QoSProfile):
        def on_mismatch(event):
            self.mismatch = f"'{self.topics[name]}' offers other QoS than asked for (policy {event.last_policy_kind})"
            if self._statistics.problem("qos mismatch", self.mismatch):
                self._node.get_logger().warning(
                    f"{self.mismatch}: set qos_overrides.{self.topics[name]}.subscription.reliability"
                )

        self.mismatch = ""
        kind, callback = {
            "image": (Image, self._on_image),
            "compressed": (CompressedImage, self._on_compressed),
            "camera_info": (CameraInfo, self._on_info),
        }[name]
        events = SubscriptionEventCallbacks(incompatible_qos=on_mismatch)
        return self._node.create_subscription(
            kind, self.topics[name], callback, qos, raw=name != "camera_info", event_callbacks=events
        )

    def _drop(self, name: str) -> None:
        if name in self._subscriptions:
            self._node.destroy_subscription(self._subscriptions.pop(name)[0])

    def _on_image(self, cdr: bytes) -> None:
        self._statistics.arrived(self.mailbox.put(Arrival(cdr, False, time.monotonic())))

    def _on_compressed(self, cdr: bytes) -> None:
        self._statistics.arrived(self.mailbox.put(Arrival(cdr, True, time.monotonic())))

    def _on_info(self, info: CameraInfo) -> None:
        with self._lock:
            self._infos.append(info)


def _topics(node: LifecycleNode) -> dict[str, str]:
    """Full names. `camera_info` and `compressed` follow `image` by image_transport's convention unless remapped themselves."""
    image = node.resolve_topic_name("image")
    follow = {"camera_info": image.rsplit("/", 1)[0] + "/camera_info", "compressed": image + "/compressed"}
    topics = {"image": image}
    for name, default in follow.items():
        remapped = node.resolve_topic_name(name)
        topics[name] = default if remapped == node.resolve_topic_name(name, only_expand=True) else remapped
    return topics
