# SPDX-License-Identifier: Apache-2.0
"""Depth together with what takes it: Nav2, RTAB-Map, a laser scan."""

from __future__ import annotations

from pathlib import Path

import yaml
from ament_index_python.packages import get_package_share_directory
from launch.actions import GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import Node, SetRemap

from . import files
from .actions import SHARE, depth, has, namespace_of, needs, robot_namespace_of, rviz, sim_time_of, transforms_of
from .arguments import is_true

try:
    from launch_ros.actions import PushROSNamespace as PushNamespace
except ImportError:  # Jazzy and older
    from launch_ros.actions import PushRosNamespace as PushNamespace

_PATIENCE = 2.0  # seconds that Nav2 drives on without a new cloud where it has nothing else


def nav2(values: dict) -> list:
    """Depth under a lifecycle manager of its own, and Nav2 with a costmap layer that takes the cloud."""
    bringup = is_true(values["bringup"])
    needs_metres(values)
    needs("nav2_lifecycle_manager", "nav2.launch.py", "navigation2")
    if bringup or not values["nav2_params"]:
        needs("nav2_bringup", "nav2.launch.py", "nav2-bringup")
    if values["layer"] == "stvl":
        needs("spatio_temporal_voxel_layer", "layer:=stvl", "spatio-temporal-voxel-layer")
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
                "use_sim_time": sim_time_of(values),
            }
        ],
        output="screen",
    )
    path = write_nav2_parameters(values)
    started = [*depth(values | {"autostart": "false", "rviz": "false"}), manager]
    if is_true(values["rviz"]):
        started.append(rviz("navigation.rviz", values, values["fixed_frame"] or "odom"))
    if bringup:
        arguments = {"params_file": path, "use_sim_time": str(sim_time_of(values)), "namespace": robot_namespace_of(values)}
        started.append(include("nav2_bringup", "navigation_launch.py", values, arguments))
    return started


def write_nav2_parameters(values: dict) -> str:
    """Nav2's parameters with depth in them, in a file of which the path is returned and printed."""
    folder, points = SHARE / "config" / "nav2", f"{namespace_of(values)}/depth/points"
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
    if is_true(values["only_depth"]):
        parameters = files.that_stops_without_depth(parameters, _PATIENCE)
    if is_true(values["mapless"]):
        parameters = files.without_map(parameters, fragments["mapless"])
    path = files.write_yaml(parameters, values["write_to"], f"{source} with a layer for {points}")
    print(f"[nav2.launch.py] Nav2's parameters with depth: {path}", flush=True)
    return path


def rtabmap(values: dict) -> list:
    """Depth, and RTAB-Map on it: colour, depth and calibration of one stamp and one size, so matched exactly."""
    needs_metres(values)
    needs("rtabmap_launch", "rtabmap.launch.py", "rtabmap-ros")
    parameters = files.preset_of(SHARE / "config" / "consumers" / "rtabmap.yaml")
    own = " ".join(f"--{name} {value}" for name, value in parameters.items() if "/" in name)
    topics, robot, visual = namespace_of(values), robot_namespace_of(values), is_true(values["visual_odometry"])
    arguments = {
        "rgb_topic": f"{topics}/rgb/image_rect",
        "camera_info_topic": f"{topics}/rgb/camera_info",
        "depth_topic": f"{topics}/depth/image",
        "frame_id": values["base_frame"] or "base_link",
        "odom_topic": "odom" if visual else values["odom_topic"] or f"{robot}/odom",
        "visual_odometry": str(visual).lower(),  # RTAB-Map compares texts
        "args": f"{values['rtabmap_args']} {own}".strip(),
        "namespace": "rtabmap",
        "use_sim_time": str(sim_time_of(values)).lower(),
        "rtabmap_viz": str(is_true(values["rtabmap_viz"])).lower(),
    }
    for name in ("approx_sync", "sync_queue_size", "topic_queue_size", "qos", "wait_for_transform"):
        arguments[name] = str(parameters[name]).lower()
    return [*depth(values), include("rtabmap_launch", "rtabmap.launch.py", values, arguments)]


def laserscan(values: dict) -> list:
    """Depth, and its own laser scan, or one that another package makes of its image (a level camera) or its cloud."""
    if values["method"] == "node":
        needs_metres(values)
        return depth(values, {"scan.frame": values["scan_frame"]} if values["scan_frame"] else None)
    by_image = values["method"] == "image"
    package = "depthimage_to_laserscan" if by_image else "pointcloud_to_laserscan"
    needs_metres(values)
    needs(package, f"method:={values['method']}", package.replace("_", "-"))
    if not values["scan_frame"]:
        raise ValueError(
            "scan_frame is empty: expected a frame with x forward, such as camera_link, or base_link for method:=cloud"
        )
    frame, topics = "target_frame", [("cloud_in", "depth/points")]
    if by_image:
        frame, topics = "output_frame", [("depth", "depth/image"), ("depth_camera_info", "depth/camera_info")]
    scan = Node(
        package=package,
        executable=f"{package}_node",
        name="depth_scan",
        namespace=namespace_of(values),
        parameters=[
            str(SHARE / "config" / "consumers" / f"{package}.yaml"),
            {"use_sim_time": sim_time_of(values), frame: values["scan_frame"]},
        ],
        remappings=[*topics, *transforms_of(values)],
        output="screen",
    )
    return [*depth(values), scan]


def needs_metres(values: dict) -> None:
    """Refuse a model whose output has no metres: nothing would come out of it here.

    Raises:
        ValueError: it has none.
    """
    if values["model"] in ("v1", "v2") and values["scale"] in ("", "none") and not values["params_file"]:
        raise ValueError(
            f"model:={values['model']} has no metres: take v2_metric_indoor or v2_metric_outdoor, or give it a scale "
            "(scale:=sparse scale_topic:=/scan)"
        )


def include(package: str, name: str, values: dict, arguments: dict[str, str]) -> GroupAction:
    """Another package's launch file with these arguments and no others, in the robot's namespace.

    The namespace is pushed here, too: up to Kilted, nav2_bringup's navigation_launch.py only names it in the parameters.
    """
    path = Path(get_package_share_directory(package)) / "launch" / name
    robot = robot_namespace_of(values)
    pushed = [PushNamespace(robot), *(SetRemap(*pair) for pair in transforms_of(values))] if robot else []
    included = IncludeLaunchDescription(PythonLaunchDescriptionSource(str(path)), launch_arguments=list(arguments.items()))
    return GroupAction([*pushed, included], scoped=True, forwarding=False)
