# SPDX-License-Identifier: Apache-2.0
"""Depth from a TurtleBot 4: depth.launch.py with the preset config/robots/turtlebot4.yaml."""

from depth_anything_ros.launching.actions import robot


def generate_launch_description():
    """All arguments of depth.launch.py but `robot`."""
    return robot("turtlebot4")
