# SPDX-License-Identifier: Apache-2.0
"""The node's publishers, and what each frame sends through them."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from ..outputs import Outputs
from ..stream.topics import LACKS, OUTPUT_TYPES, lacks_of, make_message


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
            for topic, kind in OUTPUT_TYPES.items()
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
        unserved: dict[str, set[str]] = defaultdict(set)
        old, self._sent = self._sent, {}
        for topic in wanted:
            lacks = lacks_of(topic, outputs, info)
            if not lacks:
                start = time.perf_counter()
                self._sent[topic] = make_message(topic, header, outputs, info, old.get(topic))
                made = time.perf_counter()
                self._publishers[topic].publish(self._sent[topic])
                spent(f"make {topic}", made - start)
                spent(f"publish {topic}", time.perf_counter() - made)
            elif lacks <= LACKS.keys():
                unserved[min(lacks, key=_seriousness)].add(topic)
        return dict(sorted(unserved.items(), key=lambda item: -_seriousness(item[0])))

    def close(self) -> None:
        """Destroy the publishers."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers = {}


def _seriousness(need: str) -> int:
    return list(LACKS).index(need)


def _qos() -> QoSProfile:
    """A profile for one publisher: rclpy writes the user's overrides into the object that it is given."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.RELIABLE)
