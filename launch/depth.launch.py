# SPDX-License-Identifier: Apache-2.0
"""Depth from one camera.

    ros2 launch depth_anything_ros depth.launch.py image:=/camera/color/image_raw

Later layers win: the defaults of config/depth.yaml, then your params_file, then the arguments below.
"""

from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix, get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch_ros.actions import Node

from launch import LaunchDescription

SHARE = Path(get_package_share_directory("depth_anything_ros"))

# name, default, description, and for those that are node parameters their type
ARGUMENTS = (
    ("image", "", "image topic of the camera, absolute (empty: /camera/image_raw, or the one of `compressed`)", None),
    ("camera_info", "", "its camera_info topic (empty: camera_info beside the image topic)", None),
    ("compressed", "", "compressed image topic, read instead of the raw one (empty: <image>/compressed where no raw image is"
     " published)", None),
    ("model", "", "v2_metric_indoor, v2_metric_outdoor, v1, v2, demo (empty: as in params_file, else v2_metric_indoor)", str),
    ("encoder", "", "vits, vitb, vitl (empty: as in params_file, else vits)", str),
    ("input_size", "", "short side of the network's input, pixels, a multiple of 14, demo: 16 (empty: as in params_file, else"
     " the model's own, 518)", int),
    ("device", "", "auto, cpu, cuda, cuda:N, mps (empty: as in params_file, else auto)", str),
    ("namespace", "depth_anything", "namespace of the node and of its depth/... topics", None),
    ("params_file", "", "your own YAML, written like config/depth.yaml (its first key is /**:)", None),
    ("use_sim_time", "", "true: take time from /clock (empty: as in params_file, else false)", bool),
    ("autostart", "", "false: leave configure and activate to a lifecycle manager (empty: as in params_file, else true)", bool),
    ("log_level", "info", "debug, info, warn, error", None),
    ("rviz", "false", "start RViz with the colour picture and the cloud", None),
    ("fixed_frame", "", "RViz's fixed frame (empty: camera_optical_frame)", None),
)  # fmt: skip

YES_OR_NO = ["", "true", "false", "True", "False"]
CHOICES = {
    "model": ["", "v2_metric_indoor", "v2_metric_outdoor", "v1", "v2", "demo"],
    "encoder": ["", "vits", "vitb", "vitl", "vitg", "tiny"],
    "log_level": ["debug", "info", "warn", "error"],
    "use_sim_time": YES_OR_NO,
    "autostart": YES_OR_NO,
    "rviz": YES_OR_NO[1:],
}


def generate_launch_description():
    """Declare the arguments and start the node."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text, choices=CHOICES.get(name))
        for name, default, text, _ in ARGUMENTS
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=start)])


def start(context):
    """The depth node, and RViz if asked for."""
    values = {name: context.launch_configurations[name].strip() for name, *_ in ARGUMENTS}
    parameters = []
    if values["params_file"]:
        path = Path(values["params_file"]).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"params_file '{path}' does not exist")
        parameters.append(str(path))
    overrides = {name: parse(name, values[name], kind) for name, _, _, kind in ARGUMENTS if kind and values[name]}
    if not values["image"] and not values["compressed"]:
        values["image"] = "/camera/image_raw"
    if values["compressed"]:
        overrides["image_transport"] = "compressed"
    remappings = [(name, values[name]) for name in ("image", "camera_info", "compressed") if values[name]]
    visualisation = [rviz(values)] if parse("rviz", values["rviz"], bool) else []
    logger = ".".join([*filter(None, values["namespace"].split("/")), "depth_node"])
    node = Node(
        package="depth_anything_ros",
        executable="depth_node",
        name="depth_node",
        namespace=values["namespace"],
        parameters=[*parameters, overrides],
        remappings=remappings,
        arguments=["--ros-args", "--log-level", f"{logger}:={values['log_level']}"],
        output="screen",
        emulate_tty=True,
    )
    return [node, *visualisation]


def rviz(values):
    """RViz on the node's topics."""
    try:
        get_package_prefix("rviz2")
    except PackageNotFoundError:
        raise RuntimeError("rviz:=true needs rviz2: apt install ros-$ROS_DISTRO-rviz2") from None
    topic = "/" + values["namespace"].strip("/") if values["namespace"].strip("/") else ""
    return Node(
        package="rviz2",
        executable="rviz2",
        name="depth_rviz",
        arguments=["-d", str(SHARE / "rviz" / "depth.rviz"), *(["-f", values["fixed_frame"]] if values["fixed_frame"] else [])],
        remappings=[(f"/depth_anything/depth/{name}", f"{topic}/depth/{name}") for name in ("color", "points", "image")],
        parameters=[{"use_sim_time": parse("use_sim_time", values["use_sim_time"] or "false", bool)}],
    )


def parse(name, text, kind):
    """A launch argument as the type of its parameter."""
    if kind is bool:
        return text.lower() == "true"
    if kind is int:
        try:
            return int(text)
        except ValueError:
            raise ValueError(f"{name}:={text} is not a whole number") from None
    return text
