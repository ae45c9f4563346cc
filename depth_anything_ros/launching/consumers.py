# SPDX-License-Identifier: Apache-2.0
"""Depth together with what takes it: Nav2, RTAB-Map, a laser scan."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import yaml
from ament_index_python.packages import get_package_share_directory
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import Node

from . import files
from .actions import SHARE, absolute, depth, has, is_true, namespace_of, needs, rviz


def nav2(values: dict) -> list:
    """Depth under a lifecycle manager of its own, and Nav2 with a costmap layer that takes the cloud."""
    bringup = is_true(values["bringup"])
    needs_metres(values)
    needs("nav2_lifecycle_manager", "nav2.launch.py", "navigation2")
    if bringup or not values["nav2_params"]:
        needs("nav2_bringup", "nav2.launch.py", "nav2-bringup")
    if values["layer"] == "stvl":
        needs("spatio_temporal_voxel_layer", "layer:=stvl", "spatio-temporal-voxel-layer")
    sim_time = is_true(values["use_sim_time"])
    manager = Node(
        package="nav2_lifecycle_manager",
        executable="lifecycle_manager",
        name="lifecycle_manager_depth",
        namespace=namespace_of(values),  # the node's own: its name and the bond's topic are relative
        parameters=[
            {
                "autostart": True,
                "node_names": ["depth_node"],
                "bond_timeout": 4.0 if has("bond") else 0.0,  # 0: no bond
                "use_sim_time": sim_time,
            }
        ],
        output="screen",
    )
    path = write_nav2_parameters(values)
    started = [*depth(values | {"autostart": "false", "rviz": "false"}), manager]
    if is_true(values["rviz"]):
        started.append(rviz("navigation.rviz", values, values["fixed_frame"] or "odom"))
    if bringup:
        started.append(include("nav2_bringup", "navigation_launch.py", params_file=path, use_sim_time=str(sim_time),
                               namespace=values["robot_namespace"].strip("/")))  # fmt: skip
    return started


def write_nav2_parameters(values: dict) -> str:
    """Nav2's parameters with depth in them, in a file of which the path is returned and printed."""
    folder, points = SHARE / "config" / "nav2", f"{absolute(namespace_of(values))}/depth/points"
    if values["nav2_params"]:
        source = files.user_file("nav2_params", values["nav2_params"])
    else:
        source = Path(get_package_share_directory("nav2_bringup")) / "params" / "nav2_params.yaml"
    parameters = yaml.safe_load(source.read_text())
    fragments = {name: yaml.safe_load((folder / f"{name}.yaml").read_text()) for name in files.names_of(folder)}
    if is_true(values["only_depth"]):
        parameters = files.without_other_sensors(parameters)
    parameters = files.with_depth_layer(parameters, fragments[f"{values['layer']}_layer"], points)
    parameters = files.with_collision_source(parameters, fragments["collision_monitor"], points)
    if is_true(values["mapless"]):
        parameters = files.without_map(parameters, fragments["mapless"])
    descriptor, path = tempfile.mkstemp(prefix="nav2_with_depth_", suffix=".yaml")
    with os.fdopen(descriptor, "w") as file:
        file.write(f"# {source} with a layer for {points}\n")
        yaml.safe_dump(parameters, file, sort_keys=False)
    print(f"[nav2.launch.py] Nav2's parameters with depth: {path}", flush=True)
    return path


def rtabmap(values: dict) -> list:
    """Depth, and RTAB-Map on it: colour, depth and calibration of one stamp and one size, so matched exactly."""
    needs_metres(values)
    needs("rtabmap_launch", "rtabmap.launch.py", "rtabmap-ros")
    parameters = files.preset_of(SHARE / "config" / "consumers" / "rtabmap.yaml")
    own = " ".join(f"--{name} {value}" for name, value in parameters.items() if "/" in name)
    topics, visual = absolute(namespace_of(values)), is_true(values["visual_odometry"])
    robot_namespace = values["robot_namespace"].strip("/")
    started = include(
        "rtabmap_launch",
        "rtabmap.launch.py",
        rgb_topic=f"{topics}/rgb/image_rect",
        camera_info_topic=f"{topics}/rgb/camera_info",
        depth_topic=f"{topics}/depth/image",
        frame_id=values["base_frame"],
        odom_topic="odom" if visual else values["odom_topic"] or f"{absolute(robot_namespace)}/odom",
        visual_odometry=str(visual).lower(),  # RTAB-Map compares texts
        args=f"{values['rtabmap_args']} {own}".strip(),
        namespace=f"{robot_namespace}/rtabmap".strip("/"),
        use_sim_time=str(is_true(values["use_sim_time"])).lower(),
        rtabmap_viz=str(is_true(values["rtabmap_viz"])).lower(),
        **{name: str(parameters[name]).lower() for name in ("approx_sync", "sync_queue_size", "topic_queue_size", "qos",
                                                           "wait_for_transform")},
    )  # fmt: skip
    return [*depth(values), started]


def laserscan(values: dict) -> list:
    """Depth, and a laser scan made of its image (a level camera) or its cloud (any camera on a robot with transforms)."""
    package, topics = {
        "image": ("depthimage_to_laserscan", [("depth", "depth/image"), ("depth_camera_info", "depth/camera_info")]),
        "cloud": ("pointcloud_to_laserscan", [("cloud_in", "depth/points")]),
    }[values["method"]]
    needs_metres(values)
    needs(package, f"method:={values['method']}", package.replace("_", "-"))
    frame = {"image": "output_frame", "cloud": "target_frame"}[values["method"]]
    overrides = {"use_sim_time": is_true(values["use_sim_time"])}
    overrides |= {frame: values["scan_frame"]} if values["scan_frame"] else {}
    scan = Node(
        package=package,
        executable=f"{package}_node",
        name="depth_scan",
        namespace=namespace_of(values),
        parameters=[str(SHARE / "config" / "consumers" / f"{package}.yaml"), overrides],
        remappings=[*topics, ("scan", "depth/scan")],
        output="screen",
    )
    return [*depth(values), scan]


def needs_metres(values: dict) -> None:
    """Refuse a model whose output has no metres: nothing would come out of it here.

    Raises:
        ValueError: it has none.
    """
    if values["model"] in ("v1", "v2"):
        raise ValueError(f"model:={values['model']} has no metres: take v2_metric_indoor or v2_metric_outdoor")


def include(package: str, name: str, **arguments: str) -> IncludeLaunchDescription:
    """Another package's launch file with these arguments."""
    path = Path(get_package_share_directory(package)) / "launch" / name
    return IncludeLaunchDescription(PythonLaunchDescriptionSource(str(path)), launch_arguments=list(arguments.items()))
