# SPDX-License-Identifier: Apache-2.0
"""What the launch files are made of, without launch: arguments, presets, Nav2's parameters. With it: test_launch.py."""

import ast
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from drivers import DRIVERS

from depth_anything_ros.launching import files
from depth_anything_ros.launching.arguments import (
    LASERSCAN,
    MULTI_CAMERA,
    NAV2,
    REPLAY,
    RTABMAP,
    depth_arguments,
    robot_arguments,
)
from depth_anything_ros.stream.table import CAMERA_TABLE, TABLE

REPOSITORY = Path(__file__).resolve().parent.parent
CONFIG, LAUNCH = REPOSITORY / "config", REPOSITORY / "launch"
NODE_PARAMETERS = {row.name: row for row in (*TABLE, *(replace(row, name=f"camera.{row.name}") for row in CAMERA_TABLE))}
TABLES = {"depth": depth_arguments(sorted(DRIVERS)), "multi_camera": MULTI_CAMERA}
TABLES |= {name: (*TABLES["depth"], *rows) for name, rows in (("nav2", NAV2), ("rtabmap", RTABMAP), ("laserscan", LASERSCAN))}
TABLES["replay"] = (*REPLAY, *(row for row in TABLES["depth"] if row.name not in ("use_sim_time", "autostart")))


@pytest.mark.parametrize("name", TABLES)
def test_arguments_read_like_documentation(name):
    rows = TABLES[name]
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        assert len(row.description.split()) >= 3 and not row.description.endswith("."), row.name
        if not row.default and row.name not in ("robot", "robot_namespace", "params_file", "cameras"):
            assert "(empty: " in row.description, row.name
        if row.choices:
            assert row.default in row.choices
        if row.parameter and row.parameter != "use_sim_time":  # the choices are the node's, though nothing of it is imported
            parameter = NODE_PARAMETERS[row.parameter]
            assert isinstance(parameter.default, row.kind)
            if parameter.choices and row.kind is str:
                assert set(row.choices) - {""} == set(parameter.choices) - {""}


def test_the_standard_arguments_are_there():
    for name in ("namespace", "params_file", "use_sim_time", "autostart", "log_level"):
        for rows in (TABLES["depth"], TABLES["multi_camera"]):
            assert any(row.name == name for row in rows)


def test_every_launch_file_is_there_and_a_robots_own_names_its_preset():
    found = {path.name.removesuffix(".launch.py"): path.read_text() for path in LAUNCH.glob("*.launch.py")}
    assert set(TABLES) <= set(found)
    for name, text in found.items():
        ast.parse(text)
        if name not in TABLES:
            assert f'robot("{name}")' in text and f"config/robots/{name}.yaml" in text
            assert (CONFIG / "robots" / f"{name}.yaml").is_file()


def launch_lines():
    """Every `ros2 launch depth_anything_ros ...` that is written down anywhere: (where, file, arguments)."""
    places = [REPOSITORY / "README.md", *REPOSITORY.glob("docs/*.md"), *CONFIG.rglob("*.yaml"), *LAUNCH.glob("*.py")]
    for place in places:
        for line in re.findall(r"ros2 launch depth_anything_ros (\S+\.launch\.py[^`\n]*)", place.read_text()):
            file, *words = line.split("#")[0].split()
            yield place.name, file.removesuffix(".launch.py"), [word for word in words if ":=" in word]


def test_every_line_that_is_written_down_is_one_that_starts():
    lines = list(launch_lines())
    assert len(lines) > 20
    for place, file, words in lines:
        assert (LAUNCH / f"{file}.launch.py").is_file(), (place, file)
        rows = {row.name: row for row in TABLES.get(file, TABLES["depth"])}
        for word in words:
            name, value = word.split(":=", 1)
            assert name in rows, (place, file, word)
            if not value.startswith("<"):
                assert not rows[name].choices or value in rows[name].choices, (place, file, word)


@pytest.mark.parametrize("robot", DRIVERS)
def test_a_robots_own_arguments_tell_what_its_preset_sets(robot):
    preset = files.preset_of(CONFIG / "robots" / f"{robot}.yaml")
    rows = {row.name: row for row in robot_arguments(robot, preset)}
    assert rows["robot"].default == robot and rows["robot"].choices == (robot,)
    assert f"(empty: {DRIVERS[robot].image}, the preset's)" in rows["image"].description
    assert f"(empty: {preset['model']}, the preset's)" in rows["model"].description


@pytest.mark.parametrize(
    "given, expected",
    [
        ({}, {}),
        ({"camera_info": "/i"}, {"camera.camera_info": "/i"}),
        ({"image": "/a"}, {"camera.image": "/a", "camera.camera_info": "", "camera.compressed": ""}),
        (
            {"compressed": "/a/compressed"},
            {"camera.image": "/a", "camera.camera_info": "", "camera.compressed": "/a/compressed",
             "camera.image_transport": "compressed"},
        ),
    ],
)  # fmt: skip
def test_topics_that_are_not_given_follow_the_one_that_is(given, expected):
    assert files.topics_of({"image": "", "camera_info": "", "compressed": ""} | given) == expected


def test_a_preset_in_a_namespace():
    camera = {"image": "/a/image", "compressed": "/a/jpeg", "rotation": 90}
    assert files.in_namespace(camera, "") == {}
    assert files.in_namespace(camera, "/r1") == {"camera.image": "/r1/a/image", "camera.compressed": "/r1/a/jpeg"}


def test_one_topic_for_all_cameras_is_refused():
    values = {"cameras": "front, left", "image": "/{name}/image", "camera_info": "", "compressed": "", "frame_id": ""}
    assert files.topics_of_cameras(values) == {
        "cameras": ["front", "left"], "front.image": "/front/image", "left.image": "/left/image",
    }  # fmt: skip
    with pytest.raises(ValueError, match="frame_id:=mast is the same for all cameras"):
        files.topics_of_cameras(values | {"frame_id": "mast"})


def test_sim_time_is_read_from_a_parameter_file(tmp_path):
    for name, expected in (("/**", True), ("/depth_anything/depth_node", True), ("other_node", False)):
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump({name: {"ros__parameters": {"use_sim_time": True}}}))
        assert files.says_sim_time(path) is expected


def nav2_parameters():
    """As nav2_bringup has them, cut short."""
    return yaml.safe_load("""
bt_navigator: {ros__parameters: {global_frame: map, robot_base_frame: base_link}}
local_costmap:
  local_costmap:
    ros__parameters:
      global_frame: odom
      plugins: ["voxel_layer", "inflation_layer"]
      filters: ["keepout_filter"]
      inflation_layer: {plugin: "nav2_costmap_2d::InflationLayer", inflation_radius: 0.7}
      voxel_layer: {plugin: "nav2_costmap_2d::VoxelLayer", observation_sources: scan, scan: {topic: /scan}}
global_costmap:
  global_costmap:
    ros__parameters:
      global_frame: map
      plugins: ["static_layer", "obstacle_layer", "inflation_layer"]
      static_layer: {plugin: "nav2_costmap_2d::StaticLayer"}
      obstacle_layer: {plugin: "nav2_costmap_2d::ObstacleLayer", observation_sources: scan, scan: {topic: /scan}}
      inflation_layer: {plugin: "nav2_costmap_2d::InflationLayer"}
collision_monitor: {ros__parameters: {observation_sources: ["scan"], scan: {type: scan, topic: /scan}, polygons: [A]}}
""")


def fragment(name):
    return yaml.safe_load((CONFIG / "nav2" / f"{name}.yaml").read_text())


def costmap(tree, name):
    return tree[name][name]["ros__parameters"]


@pytest.mark.parametrize("layer", ["voxel_layer", "obstacle_layer", "stvl_layer"])
def test_the_layer_comes_before_the_inflation_and_touches_nothing_else(layer):
    before = nav2_parameters()
    after = files.with_depth_layer(before, fragment(layer), "/r1/depth/points")
    assert before == nav2_parameters()
    assert costmap(after, "local_costmap")["plugins"] == ["voxel_layer", "depth_layer", "inflation_layer"]
    assert costmap(after, "global_costmap")["plugins"] == ["static_layer", "obstacle_layer", "depth_layer", "inflation_layer"]
    for name in ("local_costmap", "global_costmap"):
        added = costmap(after, name).pop("depth_layer")
        assert {added[source]["topic"] for source in added["observation_sources"].split()} == {"/r1/depth/points"}
        costmap(after, name)["plugins"].remove("depth_layer")
    assert after == before
    twice = files.with_depth_layer(files.with_depth_layer(before, fragment(layer), "/a"), fragment(layer), "/b")
    assert twice == files.with_depth_layer(before, fragment(layer), "/b")


def test_what_the_user_has_tuned_stays():
    tuned = nav2_parameters()
    for name in ("local_costmap", "global_costmap"):
        mine = {"plugin": "nav2_costmap_2d::VoxelLayer", "z_resolution": 0.2, "depth_mark": {"min_obstacle_height": 0.25}}
        costmap(tuned, name)["depth_layer"] = mine
    tuned["collision_monitor"]["ros__parameters"]["depth"] = {"min_height": 0.3, "min_points": 20, "topic": "/old"}
    after = files.with_depth_layer(tuned, fragment("voxel_layer"), "/p")
    after = files.with_collision_source(after, fragment("collision_monitor"), "/p")
    layer = costmap(after, "local_costmap")["depth_layer"]
    assert layer["z_resolution"] == 0.2 and layer["z_voxels"] == 16
    assert layer["depth_mark"]["min_obstacle_height"] == 0.25 and layer["depth_mark"]["topic"] == "/p"
    source = after["collision_monitor"]["ros__parameters"]["depth"]
    assert (source["min_height"], source["min_points"], source["topic"], source["type"]) == (0.3, 20, "/p", "pointcloud")


@pytest.mark.parametrize("layer", ["voxel_layer", "obstacle_layer", "stvl_layer"])
def test_where_there_is_nothing_else_nav2_stops_without_depth(layer):
    after = files.with_depth_layer(nav2_parameters(), fragment(layer), "/p")
    assert costmap(after, "local_costmap")["depth_layer"]["depth_mark"]["expected_update_rate"] == 0
    after = files.that_stops_without_depth(after, 2.0)
    for name in ("local_costmap", "global_costmap"):
        added = costmap(after, name)["depth_layer"]
        assert added["depth_mark"]["expected_update_rate"] == 2.0
        assert added["depth_clear"]["expected_update_rate"] == 0  # of STVL it never counts as updated


def test_the_collision_monitor_gets_a_further_source_where_there_is_one():
    after = files.with_collision_source(nav2_parameters(), fragment("collision_monitor"), "/p")["collision_monitor"]
    monitor = after["ros__parameters"]
    assert (
        monitor["observation_sources"] == ["scan", "depth"]
        and monitor["depth"]["topic"] == "/p"
        and monitor["polygons"] == ["A"]
    )
    humble = nav2_parameters()
    del humble["collision_monitor"]
    assert files.with_collision_source(humble, fragment("collision_monitor"), "/p") == humble


def test_a_robot_without_a_laser_is_not_stopped_for_want_of_one():
    after = files.without_other_sensors(nav2_parameters())
    after = files.with_collision_source(after, fragment("collision_monitor"), "/p")
    after = files.with_depth_layer(after, fragment("voxel_layer"), "/p")
    assert after["collision_monitor"]["ros__parameters"]["observation_sources"] == ["depth"]
    assert costmap(after, "local_costmap")["plugins"] == ["depth_layer", "inflation_layer"]
    assert costmap(after, "global_costmap")["plugins"] == ["static_layer", "depth_layer", "inflation_layer"]


def test_without_a_map_everything_is_planned_in_odom():
    after = files.without_map(files.with_depth_layer(nav2_parameters(), fragment("voxel_layer"), "/p"), fragment("mapless"))
    world = costmap(after, "global_costmap")
    assert (world["global_frame"], world["rolling_window"]) == ("odom", True)
    assert world["plugins"] == ["obstacle_layer", "depth_layer", "inflation_layer"]
    assert after["bt_navigator"]["ros__parameters"] == {"global_frame": "odom", "robot_base_frame": "base_link"}
    assert "filters" not in costmap(after, "local_costmap")


def test_parameters_of_another_layout_are_refused_in_words():
    with pytest.raises(ValueError, match="no local_costmap/local_costmap/ros__parameters in Nav2's parameters"):
        files.with_depth_layer({"local_costmap": {"ros__parameters": {}}}, fragment("voxel_layer"), "/p")


# What the programs declare: their sources, as docs/navigation.md names them.
DECLARED = {
    "depthimage_to_laserscan": {"scan_height", "scan_time", "range_min", "range_max", "output_frame"},
    "pointcloud_to_laserscan": {"target_frame", "transform_tolerance", "queue_size", "min_height", "max_height", "angle_min",
        "angle_max", "angle_increment", "scan_time", "range_min", "range_max", "inf_epsilon", "use_inf"},
    "octomap_server": {"frame_id", "base_frame_id", "resolution", "sensor_model.max_range", "sensor_model.hit",
        "sensor_model.miss", "point_cloud_max_z", "point_cloud_min_z", "occupancy_min_z", "occupancy_max_z",
        "filter_ground_plane"},
    "nvblox": {"num_cameras", "use_depth", "use_color", "use_lidar", "global_frame", "voxel_size", "static_mapper"},
    "rtabmap": {"subscribe_depth", "approx_sync", "sync_queue_size", "topic_queue_size", "qos", "wait_for_transform"},
}  # fmt: skip


@pytest.mark.parametrize("name", DECLARED)
def test_consumers_files_hold_only_what_the_consumer_reads(name):
    parameters = files.preset_of(CONFIG / "consumers" / f"{name}.yaml")
    assert {key for key in parameters if "/" not in key} <= DECLARED[name]
    assert all(isinstance(value, str) for key, value in parameters.items() if "/" in key)  # RTAB-Map's own are strings
    text = (CONFIG / "consumers" / f"{name}.yaml").read_text()
    topics = set(re.findall(r"/depth_anything/[a-z_/]+", text))
    assert topics <= {f"/depth_anything/{t}" for t in ("depth/image", "depth/camera_info", "depth/points", "rgb/image_rect",
                                                        "rgb/camera_info")}  # fmt: skip


@pytest.mark.parametrize("name", ["depth", "navigation"])
def test_rviz_files_show_our_topics(name):
    text = (REPOSITORY / "rviz" / f"{name}.rviz").read_text()
    displays = yaml.safe_load(text)["Visualization Manager"]["Displays"]
    topics = {display["Topic"]["Value"] for display in displays if "Topic" in display}
    assert {"/depth_anything/depth/points", "/depth_anything/depth/color"} <= topics
    for topic in topics:  # or the launch file could not move it below a robot's namespace
        assert topic.removeprefix("/depth_anything/") in (REPOSITORY / "depth_anything_ros/launching/actions.py").read_text()
