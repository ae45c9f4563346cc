# SPDX-License-Identifier: Apache-2.0
"""Depth from one camera, and Nav2 with a costmap layer that takes the cloud (docs/navigation.md).

    ros2 launch depth_anything_ros nav2.launch.py robot:=turtlebot4
    ros2 launch depth_anything_ros nav2.launch.py robot:=usb_cam only_depth:=true mapless:=true

The depth node is configured and activated by a lifecycle manager of its own, with a bond where the package bond is installed.
"""

from depth_anything_ros.launching import actions, consumers
from depth_anything_ros.launching.arguments import NAV2


def generate_launch_description():
    """Declare the arguments; start depth, its manager and Nav2."""
    rows = tuple(row for row in actions.arguments() if row.name != "autostart")
    return actions.describe((*rows, *NAV2), consumers.nav2)
