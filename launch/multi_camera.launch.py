# SPDX-License-Identifier: Apache-2.0
"""Depth from several cameras with one network.

    ros2 launch depth_anything_ros multi_camera.launch.py cameras:=front,left,rear image:=/{name}/color/image_raw

Each camera has its own topics (/depth_anything/front/depth/points ...), its own diagnostics, and its own parameters:
what a params_file says under `front:` goes before what it says under `camera:`.
"""

from pathlib import Path

from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch_ros.actions import Node

from launch import LaunchDescription

ARGUMENTS = (
    ("cameras", "", "names of the cameras, separated by commas"),
    ("image", "/{name}/image_raw", "image topic of each camera; {name} stands for the camera's name"),
    ("camera_info", "", "camera_info topic of each camera (empty: camera_info beside the image topic)"),
    ("compressed", "", "compressed topic of each camera (empty: <image>/compressed, where no raw image is published)"),
    ("frame_id", "", "optical frame of each camera's outputs (empty: the image's own)"),
    ("namespace", "depth_anything", "namespace of the node; outputs are <namespace>/<name>/depth/..."),
    ("model", "", "as of depth.launch.py"),
    ("encoder", "", "as of depth.launch.py"),
    ("input_size", "", "as of depth.launch.py"),
    ("device", "", "as of depth.launch.py"),
    ("params_file", "", "your own YAML, written like config/depth.yaml; what it says of topics wins"),
    ("use_sim_time", "false", "true: take time from /clock"),
    ("log_level", "info", "debug, info, warn, error"),
)
TOPICS = ("image", "camera_info", "compressed", "frame_id")


def generate_launch_description():
    """Declare the arguments and start the node."""
    declared = [DeclareLaunchArgument(name, default_value=default, description=text) for name, default, text in ARGUMENTS]
    return LaunchDescription([*declared, OpaqueFunction(function=start)])


def start(context):
    """One node for all cameras."""
    values = {name: context.launch_configurations[name].strip() for name, *_ in ARGUMENTS}
    cameras = [name.strip() for name in values["cameras"].split(",") if name.strip()]
    if not cameras:
        raise ValueError("cameras is empty: expected names such as cameras:=front,left,rear")
    topics = {
        f"{camera}.{topic}": values[topic].replace("{name}", camera) for camera in cameras for topic in TOPICS if values[topic]
    }
    layers = [{"cameras": cameras, **topics}]
    if values["params_file"]:
        path = Path(values["params_file"]).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"params_file '{path}' does not exist")
        layers.append(str(path))
    overrides = {name: values[name] for name in ("model", "encoder", "device") if values[name]}
    if values["input_size"]:
        overrides["input_size"] = int(values["input_size"])
    overrides["use_sim_time"] = values["use_sim_time"].lower() == "true"
    logger = ".".join([*filter(None, values["namespace"].split("/")), "depth_node"])
    return [
        Node(
            package="depth_anything_ros",
            executable="depth_node",
            name="depth_node",
            namespace=values["namespace"],
            parameters=[*layers, overrides],
            arguments=["--ros-args", "--log-level", f"{logger}:={values['log_level']}"],
            output="screen",
            emulate_tty=True,
        )
    ]
