# SPDX-License-Identifier: Apache-2.0
"""What the launch files start: arguments declared from a table, and the actions that their values make."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix, get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch_ros.actions import Node

from . import files
from .arguments import Argument, depth_arguments, is_true, robot_arguments

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
        values = {row.name: context.launch_configurations[row.name].strip() for row in rows}
        return start(values | {"pushed": context.launch_configurations.get("ros_namespace", "")})

    return LaunchDescription([*declared, OpaqueFunction(function=read)])


def arguments() -> tuple[Argument, ...]:
    """The arguments of depth.launch.py, with the presets that are installed."""
    return depth_arguments(files.names_of(PRESETS))


def robot(name: str) -> LaunchDescription:
    """depth.launch.py with a preset that is chosen already."""
    return describe(robot_arguments(name, files.preset_of(PRESETS / f"{name}.yaml")), depth)


def depth(values: dict, last: dict | None = None) -> list:
    """The depth node of one camera, and the static transform and RViz if asked for; `last`: further parameters."""
    preset, fixed_frame, layers = {}, "camera_optical_frame", []
    robot_namespace = robot_namespace_of(values)
    if values["robot"]:
        path = PRESETS / f"{values['robot']}.yaml"
        preset, fixed_frame = files.preset_of(path), files.fixed_frame_of(path)
        moved = files.in_namespace(preset["camera"], robot_namespace)
        if values["model"] and "input_size" in preset:  # it was chosen for the preset's model
            moved["input_size"] = 0
        layers = [str(path), *([files.write_layer(moved)] if moved else [])]
    remappings = [("image", f"{robot_namespace}/camera/image_raw")]  # where nothing else says which
    remappings += transforms_of(values)
    started = [depth_node(values, arguments(), layers, files.topics_of(values) | (last or {}), remappings)]
    if values["optical_parent"]:
        started.append(optical_transform(values, values["frame_id"] or preset.get("camera", {}).get("frame_id", "")))
    if is_true(values["rviz"]):
        started.append(rviz("depth.rviz", values, values["fixed_frame"] or values["frame_id"] or fixed_frame))
    return started


def several_cameras(values: dict) -> list:
    """One depth node for all cameras."""
    layers = [files.write_layer(files.topics_of_cameras(values))]
    return [depth_node(values, tuple(row for row in arguments() if row.name != "frame_id"), layers, {}, transforms_of(values))]


def depth_node(values: dict, rows: tuple[Argument, ...], layers: list[str], last: dict, remappings: list) -> Node:
    """The node itself.

    Args:
        rows: arguments that set parameters.
        layers: YAML files; later ones win, the user's params_file over them and the arguments over all. Only the arguments may
            be a dictionary: launch_ros writes that under the node's full name, which wins over the /** of files wherever it
            stands.
        last: parameters that go with the arguments.
    """
    namespace = namespace_of(values)
    if values["params_file"]:
        layers = [*layers, str(files.user_file("params_file", values["params_file"]))]
    given = {row.parameter: row.parse(values[row.name]) for row in rows if row.parameter and values.get(row.name)} | last
    logger = ".".join([*filter(None, namespace.split("/")), "depth_node"])
    return Node(
        package=PACKAGE,
        executable="depth_node",
        name="depth_node",
        namespace=namespace,
        parameters=[*layers, *([given] if given else [])],
        remappings=remappings,
        arguments=["--ros-args", "--log-level", f"{logger}:={values['log_level']}"],
        output="screen",
        emulate_tty=True,
    )


def optical_transform(values: dict, child: str) -> Node:
    """A static transform from a frame with x forward to the optical frame (REP-103)."""
    if not child:
        raise ValueError("optical_parent needs the name of the optical frame: set the argument frame_id, too")
    rotation = ["--roll", f"{-math.pi / 2}", "--pitch", "0", "--yaw", f"{-math.pi / 2}"]
    return Node(
        package="tf2_ros",
        executable="static_transform_publisher",
        name="depth_optical_frame",
        namespace=namespace_of(values),
        arguments=[*rotation, "--frame-id", values["optical_parent"], "--child-frame-id", child],
        remappings=transforms_of(values),
    )


def rviz(name: str, values: dict, fixed_frame: str) -> Node:
    """RViz with one of the package's files, its topics below the node's and the robot's namespace."""
    needs("rviz2", "rviz:=true", "rviz2")
    ours, robots = namespace_of(values), robot_namespace_of(values)
    topics = [(f"/depth_anything/{name}", f"{ours}/{name}") for name in ("depth/color", "depth/points", "rgb/image_rect")]
    of_robot = ("/local_costmap/costmap", "/global_costmap/costmap", "/plan", "/goal_pose", "/initialpose")
    return Node(
        package="rviz2",
        executable="rviz2",
        name="depth_rviz",
        arguments=["-d", str(SHARE / "rviz" / name), "-f", fixed_frame],
        remappings=[*topics, *((name, robots + name) for name in of_robot if robots), *transforms_of(values)],
        parameters=[{"use_sim_time": sim_time_of(values)}],
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


def robot_namespace_of(values: dict) -> str:
    """The robot's namespace with a slash in front; empty: the root."""
    parts = [part.strip("/") for part in (values["pushed"], values.get("robot_namespace", "")) if part.strip("/")]
    return "/" + "/".join(parts) if parts else ""


def namespace_of(values: dict) -> str:
    """The namespace of the node and of its topics, below the robot's, with a slash in front; empty: the root."""
    return robot_namespace_of(values) + (f"/{values['namespace'].strip('/')}" if values["namespace"].strip("/") else "")


def transforms_of(values: dict) -> list[tuple[str, str]]:
    """The remappings of /tf and /tf_static that a robot in a namespace needs."""
    robot = robot_namespace_of(values)
    return [(name, robot + name) for name in ("/tf", "/tf_static")] if robot else []


def sim_time_of(values: dict) -> bool:
    """Whether time comes from /clock: by the argument, else by params_file."""
    if values["use_sim_time"] or not values["params_file"]:
        return is_true(values["use_sim_time"])
    return files.says_sim_time(files.user_file("params_file", values["params_file"]))
