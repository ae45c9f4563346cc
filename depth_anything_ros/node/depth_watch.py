# SPDX-License-Identifier: Apache-2.0
"""What a player has to know of the depth node: whether it is ready, what it reads, and whether it has dealt with an image."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.srv import GetParameters
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import CameraInfo, Image

from ..stream.logs import stamp_of

_COST_A_FRAME = ("bad image", "no view", "network", "internal error")  # problems; the others cost an output
_MISSED = 3  # reports, one a second: as long as Fast DDS may take to repair a loss


@dataclass(frozen=True)
class Counts:
    """A camera's images since the node was activated: received, published, and lost (refused, failed, dropped, skipped)."""

    received: int = 0
    published: int = 0
    lost: int = 0

    def since(self, before: Counts) -> Counts:
        """What came after `before`."""
        return Counts(self.received - before.received, self.published - before.published, self.lost - before.lost)


@dataclass
class _Camera:
    """One that is played: the counts it began with, what was sent since, and the stamp that is waited for."""

    before: Counts
    sent: int = 0
    answered: int = 0
    stamp_ns: int | None = None
    last_ns: int | None = None
    done: bool = True
    sent_at: int = 0  # number of the report before


class DepthWatch:
    """Listens to /diagnostics and to two small outputs of each camera.

    An output with an image's stamp says at once that the node has dealt with it. Where none comes, since the image was refused
    or failed, the counts in /diagnostics say so within a second.

    Attributes:
        node_name: of the depth node, with its namespace; empty before it was heard.
        heard: monotonic time of its last word. reports: how many it has made in /diagnostics.
        state: of its lifecycle. network: "none", "loading" or "ready".
        failure: why it cannot work; empty if it can.
        cameras: image topic that it reads now -> name of the camera.
    """

    def __init__(self, node: Node, namespace: str):
        self.node_name = self.state = self.network = self.failure = ""
        self.heard, self.reports = time.monotonic(), 0
        self.cameras: dict[str, str] = {}
        self._node, self._namespace = node, namespace.strip("/")
        self._title = re.compile(rf"({re.escape(self._namespace)}{'/' if self._namespace else ''}[^/]+): depth ?(.*)")
        self._counts: dict[str, Counts] = {}
        self._played: dict[str, _Camera] = {}
        self._colors: dict[str, object] = {}  # subscriptions of cameras without a calibration
        self._client = None
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    @property
    def silence(self) -> float:
        """Seconds since the node's last word."""
        return time.monotonic() - self.heard

    @property
    def answers(self) -> bool:
        """Whether the node can be asked, see `ask`."""
        return self._client is not None and self._client.service_is_ready()

    def ask(self) -> Future:
        """A question whose answer says that all messages that had reached the node before have been through its callbacks.

        Its executor has one thread, and looks at subscriptions before it looks at services.
        """
        return self._client.call_async(GetParameters.Request(names=["use_sim_time"]))

    def follow(self, topics: Iterable[str]) -> None:
        """From now on, count the images of these topics; nothing of them may be on its way."""
        for topic in topics:
            self._played[topic] = _Camera(self._counts.get(topic, Counts()))
            self._node.create_subscription(
                CameraInfo, self._output(topic, "depth/camera_info"), lambda info, topic=topic: self._on_info(topic, info), 10
            )
            self._listen_to_color(topic, True)

    def expect(self, topic: str, stamp_ns: int | None) -> None:
        """An image of this stamp is about to be published; None: its stamp cannot be read."""
        camera = self._played[topic]
        camera.sent, camera.done = camera.sent + 1, False
        # Of two images with one stamp, an output does not say whose it is.
        camera.stamp_ns = None if stamp_ns == camera.last_ns else stamp_ns
        camera.last_ns, camera.sent_at = stamp_ns, self.reports

    def done(self, topic: str) -> bool:
        """Whether the node has dealt with every image of a topic that was expected."""
        return self._played[topic].done

    def missed(self, topic: str) -> bool:
        """Whether several reports have not counted the last image of a topic; True once for each time that it is sent."""
        camera = self._played[topic]
        missed = self.reports - camera.sent_at > _MISSED and self._counted(topic).received < camera.sent
        if missed:
            camera.sent_at = self.reports
        return missed

    def settled(self) -> bool:
        """Whether the node's counts say that it has dealt with everything."""
        return all(self._is_settled(topic) for topic in self._played)

    def played(self) -> tuple[int, int]:
        """(images that were expected, of how many there is depth), of all topics."""
        depths = [
            self._counted(topic).published if self._is_settled(topic) else camera.answered
            for topic, camera in self._played.items()
        ]
        return sum(camera.sent for camera in self._played.values()), sum(depths)

    def _counted(self, topic: str) -> Counts:
        return self._counts.get(topic, Counts()).since(self._played[topic].before)

    def _is_settled(self, topic: str) -> bool:
        counted = self._counted(topic)
        return counted.published + counted.lost >= counted.received >= self._played[topic].sent

    def _output(self, topic: str, name: str) -> str:
        return "/" + "/".join(filter(None, (self._namespace, self.cameras[topic], name)))

    def _listen_to_color(self, topic: str, on: bool) -> None:
        """Colours cost the node time, but come without a calibration, too."""
        if on and topic not in self._colors:
            self._colors[topic] = self._node.create_subscription(
                Image, self._output(topic, "depth/color"), lambda image: self._on_output(topic, image), 1
            )
        elif not on and topic in self._colors:
            self._node.destroy_subscription(self._colors.pop(topic))

    def _on_info(self, topic: str, info: CameraInfo) -> None:
        if self._on_output(topic, info):
            self._listen_to_color(topic, False)

    def _on_output(self, topic: str, message: CameraInfo | Image) -> bool:
        self.heard = time.monotonic()
        camera = self._played[topic]
        if camera.done or stamp_of(message) != camera.stamp_ns:
            return False
        camera.answered, camera.done = camera.answered + 1, True
        return True

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        found = [(match, status) for status in array.status if (match := self._title.fullmatch(status.name))]
        if not found:
            return
        self.heard, self.failure, self.cameras = time.monotonic(), "", {}
        self.reports += 1
        for match, status in found:
            values = {pair.key: pair.value for pair in status.values}
            self._meet(match[1])
            self.state, self.network = values.get("state", ""), values.get("network", "none")
            if status.level == DiagnosticStatus.ERROR:
                self.failure = status.message
            if topic := values.get("image topic"):
                self.cameras[topic] = match[2]
                self._count(topic, values)

    def _meet(self, name: str) -> None:
        if name != self.node_name:
            if self._client:
                self._node.destroy_client(self._client)
            self.node_name, self._client = name, self._node.create_client(GetParameters, f"/{name}/get_parameters")

    def _count(self, topic: str, values: dict[str, str]) -> None:
        lost = [f"problems: {kind}" for kind in _COST_A_FRAME] + [key for key in values if key.startswith("frames ")]
        lost.remove("frames published")
        counts = self._counts[topic] = Counts(
            int(values["images received"]), int(values["frames published"]), sum(int(values.get(key, 0)) for key in lost)
        )
        camera = self._played.get(topic)
        if camera and not camera.done and self._is_settled(topic):
            published = counts.since(camera.before).published
            self._listen_to_color(topic, published > camera.answered)
            camera.answered, camera.done = published, True
