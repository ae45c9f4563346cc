# SPDX-License-Identifier: Apache-2.0
"""Depth from one camera, and RTAB-Map on colour and depth.

ros2 launch depth_anything_ros rtabmap.launch.py robot:=realsense odom_topic:=/odom
ros2 launch depth_anything_ros rtabmap.launch.py robot:=usb_cam visual_odometry:=true base_frame:=camera_link
"""

from depth_anything_ros.launching import actions, consumers
from depth_anything_ros.launching.arguments import RTABMAP


def generate_launch_description():
    """Declare the arguments; start depth and RTAB-Map."""
    return actions.describe((*actions.arguments(), *RTABMAP), consumers.rtabmap)
