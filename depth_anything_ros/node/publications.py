# SPDX-License-Identifier: Apache-2.0
"""The node's output topics: what is on each, and when."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, LaserScan, PointCloud2
from std_msgs.msg import Header

from ..messages.compressed import compressed_color_message, compressed_depth_message, compressed_raw_depth_message
from ..messages.outgoing import cloud_message, image_message, scale_message, scan_message
from ..outputs import Outputs

_POINTS = {"metres", "camera"}

_Make = Callable[[Header, Outputs, CameraInfo, object], object]  # the last is the topic's message before, or None


def _image(pixels: Callable[[Outputs], np.ndarray], encoding: str) -> _Make:
    return lambda header, outputs, info, old: image_message(header, pixels(outputs), encoding, old)


def _cloud(packed: Callable[[Outputs], np.ndarray]) -> _Make:
    return lambda header, outputs, info, old: cloud_message(header, packed(outputs), old)


# topic -> (message type, what it needs, how it is made). Needs: see `Outputs.has`; and "view", a camera without distortion.
_TOPICS: dict[str, tuple[type, set[str], _Make]] = {
    "depth/image": (Image, {"metres"}, _image(lambda outputs: outputs.depth, "32FC1")),
    "depth/image_raw": (Image, {"metres"}, _image(lambda outputs: outputs.depth_mm, "16UC1")),
    "depth/image/compressedDepth": (
        CompressedImage,
        {"metres"},
        lambda header, outputs, info, old: compressed_depth_message(
            header, outputs.depth, outputs.settings.near, outputs.settings.far
        ),
    ),
    "depth/image_raw/compressedDepth": (
        CompressedImage,
        {"metres"},
        lambda header, outputs, info, old: compressed_raw_depth_message(header, outputs.depth_mm),
    ),
    "depth/relative": (Image, {"relative"}, _image(lambda outputs: outputs.relative, "32FC1")),
    "depth/confidence": (Image, {"confidence"}, _image(lambda outputs: outputs.confidence, "32FC1")),
    "depth/color": (Image, set(), _image(lambda outputs: outputs.color, "bgr8")),
    "depth/color/compressed": (
        CompressedImage,
        set(),
        lambda header, outputs, info, old: compressed_color_message(header, outputs.color),
    ),
    "depth/points": (PointCloud2, _POINTS, _cloud(lambda outputs: outputs.cloud)),
    "depth/clearing": (PointCloud2, _POINTS, _cloud(lambda outputs: outputs.clearing)),
    "depth/obstacles": (PointCloud2, _POINTS | {"mount"}, _cloud(lambda outputs: outputs.obstacles)),
    "depth/ground": (PointCloud2, _POINTS | {"mount"}, _cloud(lambda outputs: outputs.ground)),
    "depth/scan": (
        LaserScan,
        _POINTS | {"mount", "scan mount"},
        lambda header, outputs, info, old: scan_message(header, outputs.scan, outputs.settings.scan),
    ),
    "depth/scale": (
        DiagnosticArray,
        {"scale"},
        lambda header, outputs, info, old: scale_message(header, outputs.refined.scale),
    ),
    "depth/camera_info": (CameraInfo, {"camera"}, lambda header, outputs, info, old: info),
    "rgb/image_rect": (Image, {"camera", "view"}, _image(lambda outputs: outputs.rgb, "rgb8")),
    "rgb/camera_info": (CameraInfo, {"camera", "view"}, lambda header, outputs, info, old: info),
}
_EXPLAINED = (
    "camera",
    "view",
    "mount",
    "scan mount",
    "confidence",
    "scale",
)  # needs whose lack is worth a word: the user can do something about it


class Publications:
    """Lifecycle publishers of one camera, reliable with depth 1: they match reliable and best-effort readers alike."""

    def __init__(self, node: LifecycleNode, camera: str):
        self._node = node
        self._publishers = {
            topic: node.create_lifecycle_publisher(
                kind,
                f"{camera}/{topic}" if camera else topic,
                _qos(),
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
            for topic, (kind, _, _) in _TOPICS.items()
        }
        self._sent: dict[str, object] = {}  # of the last frame: publishing has copied them, so their memory is free again

    @property
    def possible(self) -> bool:
        """Whether ROS is still up."""
        return self._node.context.ok()

    def wanted(self) -> set[str]:
        """The topics that somebody listens to."""
        return {topic for topic, publisher in self._publishers.items() if publisher.get_subscription_count() > 0}

    def publish(
        self,
        wanted: set[str],
        header: Header,
        outputs: Outputs,
        info: CameraInfo | None,
        spent: Callable[[str, float], None],
    ) -> dict[str, set[str]]:
        """Compute and send what is wanted and can be had.

        Args:
            wanted: topics, from `wanted` when the frame's surroundings were looked up.
            header: the input's own.
            info: the depth image's own calibration, or None if there is no valid one; then there is no cloud either.
            spent: told the seconds that each topic took, "make <topic>" and "publish <topic>".

        Returns:
            What this frame lacks -> the topics that somebody listens to and that could not be served for want of it. Not of
            metres: that is not this frame's fault. The most serious lack comes last, so that it is the last word.
        """
        have = outputs.has | (set() if info is None or any(info.d) else {"view"})
        unserved: dict[str, set[str]] = defaultdict(set)
        old, self._sent = self._sent, {}
        for topic in wanted:
            _, needs, make = _TOPICS[topic]
            if topic == "depth/points" and outputs.settings.cloud.has_band:
                needs = needs | {"mount"}
            lacks = needs - have
            if not lacks:
                start = time.perf_counter()
                self._sent[topic] = make(header, outputs, info, old.get(topic))
                made = time.perf_counter()
                self._publishers[topic].publish(self._sent[topic])
                spent(f"make {topic}", made - start)
                spent(f"publish {topic}", time.perf_counter() - made)
            elif lacks <= set(_EXPLAINED):
                unserved[min(lacks, key=_EXPLAINED.index)].add(topic)
        return dict(sorted(unserved.items(), key=lambda item: -_EXPLAINED.index(item[0])))

    def close(self) -> None:
        """Destroy the publishers."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers = {}


def _qos() -> QoSProfile:
    """A profile for one publisher: rclpy writes the user's overrides into the object that it is given."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.RELIABLE)
