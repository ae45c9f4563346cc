# SPDX-License-Identifier: Apache-2.0
"""What frames need from elsewhere: transforms and a range sensor's points, of the frame's own time."""

from __future__ import annotations

from rclpy.node import Node

from ..geometry import CameraError, Transform, TransformError
from ..messages.cdr import MessageError
from ..pipeline import Side
from .parameters import Settings
from .range_sensor import RangeSensor
from .transforms import Transforms

# Outputs that need a transform to the robot's base frame; depth/points only with a band of heights.
LEVEL_TOPICS = {"depth/ground", "depth/obstacles", "depth/scan"}


class Surroundings:
    """One for all cameras of a node. `side` may be called from any thread; `refresh` belongs to the spinning one."""

    def __init__(self, node: Node, settings: Settings):
        self.transforms = Transforms(node, settings.transforms)
        self.sensor = RangeSensor(node, settings.scale_topic) if settings.scale_topic else None

    def refresh(self, settings: Settings) -> None:
        """Keep the subscriptions in line with who publishes."""
        self.transforms.refresh()
        if self.sensor and settings.refine.scale.source == "sparse":
            self.sensor.refresh()
        elif self.sensor:
            self.sensor.close()

    def close(self) -> None:
        """Unsubscribe."""
        self.transforms.close()
        if self.sensor:
            self.sensor.close()

    def side(self, stamp_ns: int, frame_id: str, settings: Settings, wanted: set[str]) -> tuple[Side, str]:
        """What a frame in `frame_id` needs for the topics that are wanted; and which transform is missing, in words."""
        mount, scan, missing = None, None, ""
        source = settings.refine.scale.source
        try:
            if source == "ground" or wanted & LEVEL_TOPICS or settings.outputs.cloud.has_band:
                mount = self.transforms.lookup(settings.base_frame, frame_id, stamp_ns)
            if "depth/scan" in wanted:
                scan = self.transforms.lookup(settings.outputs.scan.frame, frame_id, stamp_ns)
        except TransformError as error:
            missing = str(error)
        if source == "ground":
            return Side(mount=mount, scan=scan, problem=_height_problem(mount, settings) or ("" if mount else missing)), missing
        if source != "sparse":
            return Side(mount=mount, scan=scan), missing
        sensor, points, problem = self._sensor(stamp_ns, frame_id, settings)
        return Side(mount, sensor, points, scan, problem), missing

    def _sensor(self, stamp_ns: int, frame_id: str, settings: Settings):
        """(optical frame <- sensor's frame), its points, and what is the matter if there are none."""
        if self.sensor is None:
            return None, None, "scale.topic was empty when the node was configured"
        if self.sensor.problem:
            return None, None, self.sensor.problem
        try:
            frame, points = self.sensor.at(stamp_ns, settings.scale_max_offset)
            return self.transforms.lookup(frame_id, frame, stamp_ns), points, ""
        except (TransformError, MessageError, CameraError) as error:
            return None, None, f"'{self.sensor.topic}': {error}"


def _height_problem(mount: Transform | None, settings: Settings) -> str:
    if mount is None or settings.refine.scale.camera_height or mount.translation[2] > 0.02:
        return ""
    return (
        f"the camera is {mount.translation[2]:.2f} m above z = 0 of '{settings.base_frame}', which cannot be the ground: set "
        "base_frame to a frame on it, or scale.camera_height"
    )
