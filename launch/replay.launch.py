# SPDX-License-Identifier: Apache-2.0
"""Depth from a bag, live: the depth node, and the bag played in step with it. It ends with the bag.

    ros2 launch depth_anything_ros replay.launch.py bag:=walk robot:=realsense rviz:=true
    ros2 launch depth_anything_ros replay.launch.py bag:=walk.mcap pace:=time rate:=0.5

Without robot, image or params_file, the camera is found in the bag.
"""

from depth_anything_ros.launching import actions, replay
from depth_anything_ros.launching.arguments import REPLAY


def generate_launch_description():
    """Declare the arguments; start the node and the player."""
    rows = tuple(row for row in actions.arguments() if row.name not in ("use_sim_time", "autostart"))
    return actions.describe((*REPLAY, *rows), replay.replay)
