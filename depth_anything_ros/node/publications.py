# SPDX-License-Identifier: Apache-2.0
"""The node's output topics: what is on each, and when."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

from ..messages.outgoing import cloud_message, image_message
from ..pipeline import Outputs

METRES, RELATIVE, ANY, CAMERA, VIEW = "metres", "relative", "any", "a camera", "a camera without distortion"
CLOUD = "metres and a camera"

# topic -> (message type, what it needs, how it is made)
_TOPICS: dict[str, tuple[type, str, Callable[[Header, Outputs, CameraInfo], object]]] = {
    "depth/image": (Image, METRES, lambda header, outputs, info: image_message(header, outputs.depth, "32FC1")),
    "depth/image_raw": (Image, METRES, lambda header, outputs, info: image_message(header, outputs.depth_mm, "16UC1")),
    "depth/relative": (Image, RELATIVE, lambda header, outputs, info: image_message(header, outputs.relative, "32FC1")),
    "depth/points": (PointCloud2, CLOUD, lambda header, outputs, info: cloud_message(header, outputs.cloud)),
    "depth/color": (Image, ANY, lambda header, outputs, info: image_message(header, outputs.color, "bgr8")),
    "depth/camera_info": (CameraInfo, CAMERA, lambda header, outputs, info: info),
    "rgb/image_rect": (Image, VIEW, lambda header, outputs, info: image_message(header, outputs.rgb, "rgb8")),
    "rgb/camera_info": (CameraInfo, VIEW, lambda header, outputs, info: info),
}


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

    @property
    def possible(self) -> bool:
        """Whether ROS is still up."""
        return self._node.context.ok()

    def wanted(self) -> set[str]:
        """The topics that somebody listens to."""
        return {topic for topic, publisher in self._publishers.items() if publisher.get_subscription_count() > 0}

    def publish(self, header: Header, outputs: Outputs, info: CameraInfo | None) -> set[str]:
        """Compute and send what is wanted and can be had.

        Args:
            header: the input's own.
            info: the depth image's own calibration, or None if there is no valid one; then there is no cloud either.

        Returns:
            Topics that somebody listens to but that this frame could not serve for want of a calibration, or because the
            view that depth belongs to is distorted.
        """
        have = {ANY, METRES if outputs.is_metric else RELATIVE}
        if info is not None:
            have |= {CAMERA} | ({CLOUD} if outputs.is_metric else set()) | (set() if any(info.d) else {VIEW})
        unserved = set()
        for topic in self.wanted():
            _, need, make = _TOPICS[topic]
            if need in have:
                self._publishers[topic].publish(make(header, outputs, info))
            elif need in (CAMERA, VIEW) or need == CLOUD and outputs.is_metric:
                unserved.add(topic)
        return unserved

    def close(self) -> None:
        """Destroy the publishers."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers = {}


def _qos() -> QoSProfile:
    """A profile for one publisher: rclpy writes the user's overrides into the object that it is given."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.RELIABLE)
