# SPDX-License-Identifier: Apache-2.0
"""Depth from one camera, and a laser scan made of it on depth/scan.

ros2 launch depth_anything_ros laserscan.launch.py robot:=realsense scan_frame:=camera_link
ros2 launch depth_anything_ros laserscan.launch.py robot:=turtlebot4 method:=cloud scan_frame:=base_link
"""

from depth_anything_ros.launching import actions, consumers
from depth_anything_ros.launching.arguments import LASERSCAN


def generate_launch_description():
    """Declare the arguments; start depth and the converter."""
    return actions.describe((*actions.arguments(), *LASERSCAN), consumers.laserscan)
