# SPDX-License-Identifier: Apache-2.0
"""The subscriptions of one camera: images into a mailbox, calibrations at hand, met again however the camera comes back."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from rclpy.exceptions import InvalidTopicNameException
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.validate_topic_name import validate_topic_name
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from ..stream.image import complete_topics
from ..stream.logs import InfoLog
from ..stream.settings import CameraSettings, SettingsError
from .mailbox import Mailbox
from .statistics import Statistics

_FIRST_INFO = 5.0  # seconds that a camera's first camera_info may take
_RELIABILITIES = ("auto", "reliable", "best_effort")


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

    Attributes:
        topics: full names of `image`, `compressed` and `camera_info`.
        infos: the calibrations that came.
        mismatch: which publisher cannot be met with the reliability that the user insists on; empty if all can.
    """

    def __init__(
        self, node: LifecycleNode, name: str, settings: CameraSettings, mailbox: Mailbox[Arrival], statistics: Statistics
    ):
        self.topics = _topics(node, name, settings)
        self.infos, self.mismatch = InfoLog(), ""
        self._node, self._name, self._mailbox, self._statistics = node, name, mailbox, statistics
        self._transport = settings.image_transport
        self._overrides = {name: _qos_overrides(node, topic) for name, topic in self.topics.items()}
        self._subscriptions: dict[str, tuple[object, QoSProfile]] = {}
        self._offered_at = -math.inf  # when somebody began to publish camera_info

    @property
    def image_topic(self) -> str:
        """The topic that images are read from at this moment."""
        return self.topics["compressed" if "compressed" in self._subscriptions else "image"]

    def refresh(self) -> None:
        """Subscribe, or subscribe anew where the publishers and their offers have changed. Cheap; call a few times a second."""
        offers = {name: self._offers(name) for name in self.topics}
        compressed = self._transport == "compressed" or (
            self._transport == "auto" and not offers["image"] and bool(offers["compressed"])
        )
        wanted = {"compressed" if compressed else "image", "camera_info"}
        for name in [name for name in self._subscriptions if name not in wanted]:
            self._drop(name)
        mismatches = []
        for name in sorted(wanted):
            qos = self._qos(name, offers[name])
            current = self._subscriptions.get(name)
            if current is None or current[1].reliability != qos.reliability:
                self._drop(name)
                self._subscriptions[name] = (self._subscribe(name, qos), qos)
            if qos.reliability == ReliabilityPolicy.RELIABLE and ReliabilityPolicy.BEST_EFFORT in offers[name]:
                mismatches.append(
                    f"'{self.topics[name]}' is offered best effort, but reliable was asked for: set "
                    f"qos_overrides.{self.topics[name]}.subscription.reliability to auto"
                )
        self.mismatch = "; ".join(mismatches)
        if not offers["camera_info"]:  # the calibration of a camera that is gone is not that of the next one
            self.infos.clear()
            self._offered_at = -math.inf
        elif self._offered_at < 0:
            self._offered_at = time.monotonic()

    @property
    def calibration_to_come(self) -> bool:
        """Whether somebody publishes camera_info, but has not yet had the time to say any."""
        return self.infos.at(0) is None and time.monotonic() - self._offered_at < _FIRST_INFO

    def close(self) -> None:
        """Unsubscribe."""
        for name in list(self._subscriptions):
            self._drop(name)

    def describe_publishers(self) -> str:
        """Who publishes images, for a person who wonders why none come."""
        read = {"auto": ("image", "compressed"), "raw": ("image",), "compressed": ("compressed",)}[self._transport]
        offers = {name: self._offers(name) for name in ("image", "compressed")}
        found = [f"'{self.topics[name]}' has {len(offers[name])} ({_names(offers[name])})" for name in read if offers[name]]
        if found:
            return "publishers: " + ", ".join(found)
        unread = [name for name in ("image", "compressed") if name not in read and offers[name]]
        hint = f" ('{self.topics[unread[0]]}' has one, but image_transport is {self._transport})" if unread else ""
        return "no publisher on " + " or ".join(f"'{self.topics[name]}'" for name in read) + hint

    def _offers(self, name: str) -> list[ReliabilityPolicy]:
        return [info.qos_profile.reliability for info in self._node.get_publishers_info_by_topic(self.topics[name])]

    def _qos(self, name: str, offers: list[ReliabilityPolicy]) -> QoSProfile:
        """What the user set, else reliable if every publisher offers it. Before there is one: best effort, which meets all."""
        reliability, depth = self._overrides[name]
        reliable = bool(offers) and all(offer == ReliabilityPolicy.RELIABLE for offer in offers)
        if reliability != "auto":
            reliable = reliability == "reliable"
        policy = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=policy)

    def _subscribe(self, name: str, qos: QoSProfile):
        kind, callback = {
            "image": (Image, self._on_image),
            "compressed": (CompressedImage, self._on_compressed),
            "camera_info": (CameraInfo, self.infos.add),
        }[name]
        return self._node.create_subscription(kind, self.topics[name], callback, qos, raw=name != "camera_info")

    def _drop(self, name: str) -> None:
        if name in self._subscriptions:
            self._node.destroy_subscription(self._subscriptions.pop(name)[0])

    def _on_image(self, cdr: bytes) -> None:
        self._leave(Arrival(cdr, False, time.monotonic()))

    def _on_compressed(self, cdr: bytes) -> None:
        self._leave(Arrival(cdr, True, time.monotonic()))

    def _leave(self, arrival: Arrival) -> None:
        self._statistics.arrived(self._mailbox.put(self._name, arrival))


def _names(offers: list[ReliabilityPolicy]) -> str:
    return ", ".join(sorted(offer.name.lower() for offer in offers))


def _topics(node: LifecycleNode, camera: str, settings: CameraSettings) -> dict[str, str]:
    """Full names. What is neither set nor remapped follows the image topic by image_transport's convention."""
    topics, known = {}, set()
    for name in ("image", "compressed", "camera_info"):
        asked = getattr(settings, name) or (f"{camera}/{name}" if camera else name)
        try:
            validate_topic_name(asked)
            topics[name] = node.resolve_topic_name(asked)
            remapped = topics[name] != node.resolve_topic_name(asked, only_expand=True)
        except InvalidTopicNameException as error:
            raise SettingsError(f"{camera or 'camera'}.{name}: {str(error).splitlines()[0]}") from error
        if getattr(settings, name) or remapped:
            known.add(name)
    return complete_topics(topics, known)


def _qos_overrides(node: LifecycleNode, topic: str) -> tuple[str, int]:
    """The standard parameters of a subscription, (reliability, depth), with "auto" as a further reliability."""
    values = []
    for name, default in (("reliability", "auto"), ("depth", 1)):
        full = f"qos_overrides.{topic}.subscription.{name}"
        if not node.has_parameter(full):
            node.declare_parameter(full, default)
        values.append(node.get_parameter(full).value)
    if values[0] not in _RELIABILITIES or values[1] < 1:
        raise SettingsError(
            f"qos_overrides.{topic}.subscription: reliability '{values[0]}' and depth {values[1]}, expected one of "
            f"{', '.join(_RELIABILITIES)} and at least 1"
        )
    return values[0], values[1]
