# SPDX-License-Identifier: Apache-2.0
"""Depth from PX4's x500_mono_cam in Gazebo: depth.launch.py with the preset config/robots/px4_gazebo.yaml."""

from depth_anything_ros.launching.actions import robot


def generate_launch_description():
    """All arguments of depth.launch.py but `robot`."""
    return robot("px4_gazebo")
