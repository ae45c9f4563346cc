# SPDX-License-Identifier: Apache-2.0
"""The bond to a lifecycle manager, such as Nav2's: it notices within seconds when depth stops, however it stops."""

from __future__ import annotations

import uuid

from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode

_TOPIC = "bond"  # relative: manager and node are in one namespace
_PERIOD, _TIMEOUT = 0.2, 4.0  # seconds between heartbeats; without one, as Nav2 has it, until the bond counts as broken


class Bond:
    """Our half of a bond of bond_core: heartbeats from the spinning thread until `end`.

    Not bondpy's: its `shutdown` leaves a destroyed subscription in the node, and rclpy spins no more. We do not watch the
    manager, as Nav2's own nodes do not.
    """

    def __init__(self, node: LifecycleNode):
        """Begin.

        Raises:
            ImportError: the messages of bond_core (package bond, which comes with Nav2) are not installed.
        """
        from bond.msg import Status

        self._node = node
        self._status = Status(id=node.get_name(), instance_id=str(uuid.uuid4()), active=True)
        self._status.heartbeat_period, self._status.heartbeat_timeout = _PERIOD, _TIMEOUT
        self._publisher = node.create_publisher(Status, _TOPIC, 5)
        self._timer = node.create_timer(_PERIOD, self._publish, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._publish()

    def end(self) -> None:
        """Say that we go; after an interrupt, when ROS is down already, the manager finds out by itself."""
        self._status.active = False
        try:
            self._publish()
            self._publisher.wait_for_all_acked(Duration(seconds=0.5))
        except Exception:
            if self._node.context.ok():
                raise
            return
        self._node.destroy_timer(self._timer)
        self._node.destroy_publisher(self._publisher)

    def _publish(self) -> None:
        self._status.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(self._status)


def bond_with_manager(node: LifecycleNode) -> Bond | None:
    """A bond for a node that is managed, where bonds can be had."""
    try:
        return Bond(node)
    except ImportError:
        return None
