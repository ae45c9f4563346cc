# SPDX-License-Identifier: Apache-2.0
"""The bond to a lifecycle manager, such as Nav2's: it notices within seconds when this process is gone."""

from __future__ import annotations

from rclpy.lifecycle import LifecycleNode

_TOPIC = "bond"  # relative: manager and node are in one namespace
_HEARTBEAT_PERIOD = 0.2  # seconds
_NEVER = 1e7  # seconds; we do not watch the manager, as Nav2's own nodes do not


def bond_with_manager(node: LifecycleNode):
    """A bond that is being formed, or None where bondpy is not installed. End it with its `shutdown()`."""
    try:
        from bondpy.bondpy import Bond
    except ImportError:
        return None
    bond = Bond(node, _TOPIC, node.get_name())
    bond.heartbeat_period, bond.heartbeat_timeout = _HEARTBEAT_PERIOD, _NEVER
    bond.start()
    return bond
