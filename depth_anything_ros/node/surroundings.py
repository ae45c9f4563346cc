# SPDX-License-Identifier: Apache-2.0
"""What frames need from elsewhere: transforms and a range sensor's points, of the frame's own time."""

from __future__ import annotations

from rclpy.node import Node

from ..pipeline import Side
from ..stream.settings import Settings
from ..stream.side import side_of
from .range_sensor import RangeSensor
from .transforms import Transforms


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
        """See `side_of`."""
        return side_of(stamp_ns, frame_id, settings, wanted, self.transforms.lookup, self.sensor)
