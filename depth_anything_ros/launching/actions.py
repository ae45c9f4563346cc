# SPDX-License-Identifier: Apache-2.0
"""What the launch files start: arguments declared from a table, and the actions that their values make."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix, get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch_ros.actions import Node

from launch import LaunchContext, LaunchDescription

from . import files
from .arguments import Argument, depth_arguments, robot_arguments

PACKAGE = "depth_anything_ros"
SHARE = Path(get_package_share_directory(PACKAGE))
PRESETS = SHARE / "config" / "robots"


def describe(rows: tuple[Argument, ...], start: Callable[[dict], list]) -> LaunchDescription:
    """A launch file: its arguments, and `start(values)` with what they are (texts, by name)."""
    declared = [
        DeclareLaunchArgument(row.name, default_value=row.default, description=row.description, choices=row.choices or None)
        for row in rows
    ]

    def read(context: LaunchContext) -> list:
        return start({row.name: context.launch_configurations[row.name].strip() for row in rows})

    return LaunchDescription([*declared, OpaqueFunction(function=read)])


def arguments() -> tuple[Argument, ...]:
    """The arguments of depth.launch.py, with the presets that are installed."""
    return depth_arguments(files.names_of(PRESETS))


def robot(name: str) -> LaunchDescription:
    """depth.launch.py with a preset that is chosen already."""
    return describe(robot_arguments(name, files.preset_of(PRESETS / f"{name}.yaml")), depth)


def depth(values: dict) -> list:
    """The depth node of one camera, and the static transform and RViz if asked for."""
    namespace, rows = namespace_of(values), {row.name: row for row in arguments()}
    preset, layers = {}, []
    if values["robot"]:
        path = PRESETS / f"{values['robot']}.yaml"
        preset = files.preset_of(path)
        layers += [str(path), files.in_namespace(preset["camera"], values["robot_namespace"])]
    layers += [str(files.user_file("params_file", values["params_file"]))] if values["params_file"] else []
    last = {row.parameter: row.parse(values[name]) for name, row in rows.items() if row.parameter and values[name]}
    started = [depth_node(values, [*layers, last | files.topics_of(values)], [("image", "/camera/image_raw")])]
    frame_id = values["frame_id"] or preset.get("camera", {}).get("frame_id", "")
    if values["optical_parent"]:
        started.append(optical_transform(values, namespace, frame_id))
    if rows["rviz"].parse(values["rviz"]):
        of_preset = files.fixed_frame_of(PRESETS / f"{values['robot']}.yaml") if values["robot"] else ""
        fixed_frame = values["fixed_frame"] or values["frame_id"] or of_preset or "camera_optical_frame"
        started.append(rviz("depth.rviz", values, fixed_frame))
    return started


def several_cameras(values: dict) -> list:
    """One depth node for all cameras."""
    cameras = [name.strip() for name in values["cameras"].split(",") if name.strip()]
    if not cameras:
        raise ValueError("cameras is empty: expected names such as cameras:=front,left,rear")
    topics = (*files.TOPICS, "frame_id")
    first = {
        f"{camera}.{topic}": values[topic].replace("{name}", camera) for camera in cameras for topic in topics if values[topic]
    }
    layers = [{"cameras": cameras} | first]
    layers += [str(files.user_file("params_file", values["params_file"]))] if values["params_file"] else []
    rows = {row.name: row for row in arguments() if row.parameter and row.name != "frame_id"}
    last = {row.parameter: row.parse(values[name]) for name, row in rows.items() if values.get(name)}
    return [depth_node(values, [*layers, last], [])]


def depth_node(values: dict, parameters: list, remappings: list[tuple[str, str]]) -> Node:
    """The node itself; parameters that come later win."""
    namespace = namespace_of(values)
    logger = ".".join([*filter(None, namespace.split("/")), "depth_node"])
    return Node(
        package=PACKAGE,
        executable="depth_node",
        name="depth_node",
        namespace=namespace,
        parameters=[layer for layer in parameters if layer],
        remappings=remappings,
        arguments=["--ros-args", "--log-level", f"{logger}:={values['log_level']}"],
        output="screen",
        emulate_tty=True,
    )


def optical_transform(values: dict, namespace: str, child: str) -> Node:
    """A static transform from a frame with x forward to the optical frame (REP-103)."""
    if not child:
        raise ValueError("optical_parent needs the name of the optical frame: set frame_id, too")
    rotation = ["--roll", f"{-math.pi / 2}", "--pitch", "0", "--yaw", f"{-math.pi / 2}"]
    robot_namespace = values["robot_namespace"].strip("/")
    return Node(
        package="tf2_ros",
        executable="static_transform_publisher",
        name="depth_optical_frame",
        namespace=namespace,
        arguments=[*rotation, "--frame-id", values["optical_parent"], "--child-frame-id", child],
        remappings=[("/tf_static", f"/{robot_namespace}/tf_static")] if robot_namespace else [],
    )


def rviz(name: str, values: dict, fixed_frame: str) -> Node:
    """RViz with one of the package's files, its topics below the node's namespace."""
    needs("rviz2", "rviz:=true", "rviz2")
    ours, robot_namespace = namespace_of(values), absolute(values["robot_namespace"].strip("/"))
    robots = ("/tf", "/tf_static", "/local_costmap/costmap", "/global_costmap/costmap", "/plan", "/goal_pose", "/initialpose")
    topics = [
        (f"/depth_anything/{name}", f"{absolute(ours)}/{name}") for name in ("depth/color", "depth/points", "rgb/image_rect")
    ]
    topics += [(name, f"{robot_namespace}{name}") for name in robots] if robot_namespace else []
    return Node(
        package="rviz2",
        executable="rviz2",
        name="depth_rviz",
        arguments=["-d", str(SHARE / "rviz" / name), "-f", fixed_frame],
        remappings=topics,
        parameters=[{"use_sim_time": is_true(values["use_sim_time"])}],
    )


def needs(package: str, what: str, debian: str) -> None:
    """Refuse to start without a package, in words.

    Raises:
        RuntimeError: it is not installed.
    """
    if not has(package):
        raise RuntimeError(f"{what} needs {package}: apt install ros-$ROS_DISTRO-{debian}")


def has(package: str) -> bool:
    """Whether a package is installed."""
    try:
        get_package_prefix(package)
    except PackageNotFoundError:
        return False
    return True


def namespace_of(values: dict) -> str:
    """The namespace of the node: below the robot's."""
    return "/".join(part.strip("/") for part in (values.get("robot_namespace", ""), values["namespace"]) if part.strip("/"))


def absolute(namespace: str) -> str:
    """With a slash in front, unless it is the root."""
    return f"/{namespace}" if namespace else ""


def is_true(text: str) -> bool:
    """Whether a switch is on."""
    return text.lower() == "true"
