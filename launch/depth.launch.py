# SPDX-License-Identifier: Apache-2.0
"""Depth from one camera.

    ros2 launch depth_anything_ros depth.launch.py robot:=realsense
    ros2 launch depth_anything_ros depth.launch.py image:=/camera/color/image_raw

Later layers win: the defaults of config/depth.yaml, the robot's preset in config/robots, your params_file, then the
arguments below.
"""

import math
from pathlib import Path

import yaml
from ament_index_python.packages import PackageNotFoundError, get_package_prefix, get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch_ros.actions import Node

from launch import LaunchDescription

SHARE = Path(get_package_share_directory("depth_anything_ros"))
ROBOTS = sorted(path.stem for path in (SHARE / "config" / "robots").glob("*.yaml"))

# name, default, description, and for those that are node parameters the parameter and its type
ARGUMENTS = (
    ("robot", "", "preset of a robot or camera: its topics, frame, rectification and a suitable model", None),
    ("robot_namespace", "", "namespace of the robot, such as a200_0000: before the preset's topics and the node's own", None),
    ("image", "", "image topic of the camera (empty: the preset's, else /camera/image_raw)", None),
    ("camera_info", "", "its camera_info topic (empty: the preset's, else camera_info beside the image topic)", None),
    ("compressed", "", "compressed image topic, read instead of the raw one (empty: the preset's, else <image>/compressed,"
     " where no raw image is published)", None),
    ("frame_id", "", "optical frame of all outputs (empty: the preset's, else the image's own)", ("camera.frame_id", str)),
    ("optical_parent", "", "frame of the camera's mount, x forward: a static transform from it to the optical frame is"
     " published, for drivers that publish none (empty: none)", None),
    ("model", "", "v2_metric_indoor, v2_metric_outdoor, v1, v2, demo (empty: the preset's, else v2_metric_indoor)",
     ("model", str)),
    ("encoder", "", "vits, vitb, vitl (empty: as in params_file, else vits)", ("encoder", str)),
    ("input_size", "", "short side of the network's input, pixels, a multiple of 14, demo: 16 (empty: the preset's, else the"
     " model's own, 518)", ("input_size", int)),
    ("device", "", "auto, cpu, cuda, cuda:N, mps (empty: as in params_file, else auto)", ("device", str)),
    ("namespace", "depth_anything", "namespace of the node and of its depth/... topics", None),
    ("params_file", "", "your own YAML, written like config/depth.yaml (its first key is /**:)", None),
    ("use_sim_time", "", "true: take time from /clock (empty: as in params_file, else false)", ("use_sim_time", bool)),
    ("autostart", "", "false: leave configure and activate to a lifecycle manager (empty: as in params_file, else true)",
     ("autostart", bool)),
    ("log_level", "info", "debug, info, warn, error", None),
    ("rviz", "false", "start RViz with the colour picture and the cloud", None),
    ("fixed_frame", "", "RViz's fixed frame (empty: camera_optical_frame)", None),
)  # fmt: skip

YES_OR_NO = ["", "true", "false", "True", "False"]
CHOICES = {
    "robot": ["", *ROBOTS],
    "model": ["", "v2_metric_indoor", "v2_metric_outdoor", "v1", "v2", "demo"],
    "encoder": ["", "vits", "vitb", "vitl", "vitg", "tiny"],
    "log_level": ["debug", "info", "warn", "error"],
    "use_sim_time": YES_OR_NO,
    "autostart": YES_OR_NO,
    "rviz": YES_OR_NO[1:],
}
TOPICS = ("image", "camera_info", "compressed")


def generate_launch_description():
    """Declare the arguments and start the node."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text, choices=CHOICES.get(name))
        for name, default, text, _ in ARGUMENTS
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=start)])


def start(context):
    """The depth node, and the static transform and RViz if asked for."""
    values = {name: context.launch_configurations[name].strip() for name, *_ in ARGUMENTS}
    values["namespace"] = "/".join(part.strip("/") for part in (values["robot_namespace"], values["namespace"]) if part)
    preset, layers = {}, []
    if values["robot"]:
        path = SHARE / "config" / "robots" / f"{values['robot']}.yaml"
        preset = yaml.safe_load(path.read_text())["/**"]["ros__parameters"]
        layers += [str(path), in_namespace(preset["camera"], values["robot_namespace"])]
    if values["params_file"]:
        path = Path(values["params_file"]).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"params_file '{path}' does not exist")
        layers.append(str(path))
    overrides = {row[3][0]: parse(row[0], values[row[0]], row[3][1]) for row in ARGUMENTS if row[3] and values[row[0]]}
    overrides |= topics_of(values)
    transforms = [optical_transform(values, preset)] if values["optical_parent"] else []
    visualisation = [rviz(values)] if parse("rviz", values["rviz"], bool) else []
    logger = ".".join([*filter(None, values["namespace"].split("/")), "depth_node"])
    node = Node(
        package="depth_anything_ros",
        executable="depth_node",
        name="depth_node",
        namespace=values["namespace"],
        parameters=[*(layer for layer in layers if layer), overrides],
        remappings=[("image", "/camera/image_raw")],  # where nothing else says which
        arguments=["--ros-args", "--log-level", f"{logger}:={values['log_level']}"],
        output="screen",
        emulate_tty=True,
    )
    return [node, *transforms, *visualisation]


def in_namespace(camera, namespace):
    """The preset's topics below the robot's namespace, as parameters."""
    prefix = "/" + namespace.strip("/")
    return {f"camera.{name}": prefix + camera[name] for name in TOPICS if camera.get(name)} if namespace else {}


def topics_of(values):
    """The topics of the command line as parameters. Those that are not given follow the one that is, not the preset's."""
    if not values["image"] and not values["compressed"]:
        return {"camera.camera_info": values["camera_info"]} if values["camera_info"] else {}
    result = {f"camera.{name}": values[name] for name in TOPICS}
    if values["compressed"]:
        result["camera.image_transport"] = "compressed"
        result["camera.image"] = values["image"] or values["compressed"].removesuffix("/compressed")
    return result


def optical_transform(values, preset):
    """A static transform from a frame with x forward to the optical frame (REP-103)."""
    child = values["frame_id"] or preset.get("camera", {}).get("frame_id", "")
    if not child:
        raise ValueError("optical_parent needs the name of the optical frame: set frame_id, too")
    rotation = ["--roll", f"{-math.pi / 2}", "--pitch", "0", "--yaw", f"{-math.pi / 2}"]
    robot = values["robot_namespace"].strip("/")
    return Node(
        package="tf2_ros",
        executable="static_transform_publisher",
        name="depth_optical_frame",
        namespace=values["namespace"],
        arguments=[*rotation, "--frame-id", values["optical_parent"], "--child-frame-id", child],
        remappings=[("/tf_static", f"/{robot}/tf_static")] if robot else [],
    )


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
