# SPDX-License-Identifier: Apache-2.0
"""Depth from one camera.

    ros2 launch depth_anything_ros depth.launch.py robot:=realsense
    ros2 launch depth_anything_ros depth.launch.py image:=/camera/color/image_raw

Later layers win: the defaults of config/depth.yaml, the robot's preset in config/robots, your params_file, then the
arguments.
"""

from depth_anything_ros.launching import actions


def generate_launch_description():
    """Declare the arguments and start the node."""
    return actions.describe(actions.arguments(), actions.depth)
