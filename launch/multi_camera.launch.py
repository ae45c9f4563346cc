# SPDX-License-Identifier: Apache-2.0
"""Depth from several cameras with one network.

    ros2 launch depth_anything_ros multi_camera.launch.py cameras:=front,left,rear image:=/{name}/color/image_raw

Each camera has its own topics (/depth_anything/front/depth/points ...), its own diagnostics, and its own parameters:
what a params_file says under `front:` goes before what it says under `camera:`.
"""

from depth_anything_ros.launching import actions
from depth_anything_ros.launching.arguments import MULTI_CAMERA


def generate_launch_description():
    """Declare the arguments and start the node."""
    return actions.describe(MULTI_CAMERA, actions.several_cameras)
