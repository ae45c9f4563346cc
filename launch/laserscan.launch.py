# SPDX-License-Identifier: Apache-2.0
"""Depth from one camera, and a laser scan of what stands in its way.

ros2 launch depth_anything_ros laserscan.launch.py robot:=turtlebot4
ros2 launch depth_anything_ros laserscan.launch.py robot:=realsense method:=image scan_frame:=camera_link
"""

from depth_anything_ros.launching import actions, consumers
from depth_anything_ros.launching.arguments import LASERSCAN


def generate_launch_description():
    """Declare the arguments; start depth and the converter."""
    return actions.describe((*actions.arguments(), *LASERSCAN), consumers.laserscan)
