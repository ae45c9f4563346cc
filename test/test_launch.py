# SPDX-License-Identifier: Apache-2.0
"""The launch files, started by the real `ros2 launch`, with stand-ins for drivers and for other packages' programs."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from bags import camera_messages, write_bag
from drivers import DRIVERS, StandIn, camera_player, check_outputs, outputs_of
from ros import bench
from sensor_msgs.msg import CameraInfo, Image

pytest.importorskip("launch_ros", reason="launch is not on PyPI: needs a ROS 2 distro")
ROS2 = shutil.which("ros2")
if not ROS2:
    pytest.skip("needs ros2 launch of a ROS 2 distro", allow_module_level=True)
from ament_index_python.packages import PackageNotFoundError, get_package_share_directory  # noqa: E402

from depth_anything_ros.launching.actions import has  # noqa: E402

try:
    get_package_share_directory("depth_anything_ros")
except PackageNotFoundError:
    pytest.skip("the package is not installed: source install/setup.bash first", allow_module_level=True)

TEST = Path(__file__).resolve().parent
LAUNCH = TEST.parent / "launch"
ROBOTS_WITH_A_FILE = [path.name.removesuffix(".launch.py") for path in LAUNCH.glob("*.launch.py")]
ROBOTS_WITH_A_FILE = [name for name in ROBOTS_WITH_A_FILE if name in DRIVERS]
SMALL = ("model:=demo", "input_size:=96", "device:=cpu")


class Launch:
    """`ros2 launch depth_anything_ros <file> <arguments>` in a process group of its own."""

    def __init__(self, folder, file, *arguments, prefix=None):
        self.log_file = folder / "launch.log"
        paths = [str(prefix)] if prefix else []
        environment = os.environ | {
            "ROS_LOG_DIR": str(folder),
            "AMENT_PREFIX_PATH": os.pathsep.join([*paths, os.environ["AMENT_PREFIX_PATH"]]),
        }
        with self.log_file.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, ROS2, "launch", "depth_anything_ros", file, *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=folder,
                start_new_session=True,
            )

    @property
    def log(self):
        return self.log_file.read_text()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(30)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)


class Prefix:
    """An ament prefix of stand-ins: programs that write down how they were started, and launch files that write down why."""

    def __init__(self, folder):
        self.folder = folder / "prefix"

    def package(self, name):
        marker = self.folder / "share" / "ament_index" / "resource_index" / "packages" / name
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
        (self.folder / "share" / name / "launch").mkdir(parents=True, exist_ok=True)
        (self.folder / "lib" / name).mkdir(parents=True, exist_ok=True)

    def program(self, package, name, body='echo "$@" > "$0.called"; exec sleep 1000'):
        self.package(package)
        path = self.folder / "lib" / package / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path.with_name(f"{name}.called")

    def launch_file(self, package, name, arguments):
        self.package(package)
        path = self.folder / "share" / package / "launch" / name
        path.write_text(
            "import yaml\nfrom launch import LaunchDescription\n"
            "from launch.actions import DeclareLaunchArgument, OpaqueFunction\n"
            f"NAMES = {arguments!r}\n"
            "def record(context):\n"
            f"    open({str(path) + '.called'!r}, 'w').write(yaml.safe_dump(dict(context.launch_configurations)))\n"
            "def generate_launch_description():\n"
            "    declared = [DeclareLaunchArgument(name, default_value='') for name in NAMES]\n"
            "    return LaunchDescription([*declared, OpaqueFunction(function=record)])\n"
        )
        return path.with_name(f"{name}.called")


def content(it, path, seconds=30):
    it.wait(lambda: path.exists() and path.read_text().strip(), f"{path.name}", seconds)
    return path.read_text()


@pytest.mark.parametrize("robot", DRIVERS)
def test_one_line_and_depth_comes_out(robot, tmp_path):
    """With the robot's own launch file where it has one, else with robot:=<name>; camera_player is the driver if it can be."""
    own = robot in ROBOTS_WITH_A_FILE
    line = (f"{robot}.launch.py",) if own else ("depth.launch.py", f"robot:={robot}")
    with Launch(tmp_path, *line, *SMALL) as launch, bench(namespace="depth_anything") as it:
        it.wait_ready()
        player = camera_player(DRIVERS[robot], tmp_path / "player")
        if player:
            with player:
                it.wait(lambda: all(it.received[t] for t in outputs_of(DRIVERS[robot])), "depth of camera_player")
                check_outputs(it, DRIVERS[robot])
        else:
            camera = StandIn(it, DRIVERS[robot])
            camera.wait_read()
            camera.expect_depth()
        assert "Traceback" not in launch.log and "refused" not in launch.log


def test_a_robot_in_a_namespace(tmp_path):
    with (
        Launch(tmp_path, "clearpath.launch.py", "robot_namespace:=a200_0000", *SMALL),
        bench(namespace="a200_0000/depth_anything") as it,
    ):
        camera = StandIn(it, DRIVERS["clearpath"], namespace="/a200_0000")
        it.wait_ready()
        camera.wait_read()
        camera.expect_depth()


def test_later_layers_win(tmp_path):
    """Preset, then params_file, then the command line."""
    mine = {"/**": {"ros__parameters": {"input_size": 128, "max_depth": 7.0, "camera": {"image": "/mine/picture"}}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(mine))
    arguments = ("robot:=turtlebot4", "model:=demo", "device:=cpu", f"params_file:={tmp_path / 'mine.yaml'}")
    with Launch(tmp_path, "depth.launch.py", *arguments, "input_size:=96"), bench(namespace="depth_anything") as it:
        it.wait_ready()
        assert (it.get_parameter("input_size"), it.get_parameter("max_depth")) == (96, 7.0)
        assert it.values["image topic"] == "/mine/picture"
        assert it.values["camera_info topic"] == "/oakd/rgb/preview/camera_info"


def test_a_users_topic_wins_over_the_presets_in_a_namespace(tmp_path):
    mine = {"/**": {"ros__parameters": {"camera": {"image": "/mine/picture"}, "use_sim_time": False}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(mine))
    arguments = ("robot:=turtlebot4", "robot_namespace:=tb4", f"params_file:={tmp_path / 'mine.yaml'}", *SMALL)
    with Launch(tmp_path, "depth.launch.py", *arguments), bench(namespace="tb4/depth_anything") as it:
        it.wait_ready()
        assert it.values["image topic"] == "/mine/picture"


def test_another_model_does_not_inherit_the_presets_input_size(tmp_path):
    with Launch(tmp_path, "turtlebot4.launch.py", "model:=demo", "device:=cpu"), bench(namespace="depth_anything") as it:
        it.wait_ready()
        assert it.values["input size"] == "192"


def test_several_cameras(tmp_path):
    mine = {"/**": {"ros__parameters": {"input_size": 128, "left": {"rotation": 180}}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(mine))
    arguments = ("cameras:=front,left", "image:=/{name}/color/image_raw", f"params_file:={tmp_path / 'mine.yaml'}", *SMALL)
    with Launch(tmp_path, "multi_camera.launch.py", *arguments), bench(namespace="depth_anything", listen=()) as it:
        cameras = {}
        for name in ("front", "left"):
            topics = {"image": f"/{name}/color/image_raw", "info": f"/{name}/color/camera_info"}
            cameras[name] = StandIn(it, DRIVERS["realsense"]._replace(**topics))
        received = {name: [] for name in cameras}
        for name in cameras:
            it.node.create_subscription(Image, f"{name}/depth/image", received[name].append, 5)
        for camera in cameras.values():
            camera.wait_read(60)
        assert it.get_parameter("input_size") == 96 and it.get_parameter("left.rotation") == 180

        def both():
            for camera in cameras.values():
                camera.send()
            it.spin(0.3)
            return all(received.values())

        it.wait(both, "depth of both cameras", 60)
        for messages in received.values():
            assert (messages[0].width, messages[0].height) == DRIVERS["realsense"].size


NAV2_PARAMETERS = {
    "local_costmap": {"local_costmap": {"ros__parameters": {"plugins": ["voxel_layer", "inflation_layer"],
        "voxel_layer": {"plugin": "nav2_costmap_2d::VoxelLayer", "observation_sources": "scan", "scan": {"topic": "/scan"}},
        "inflation_layer": {"plugin": "nav2_costmap_2d::InflationLayer"}}}},
    "global_costmap": {"global_costmap": {"ros__parameters": {"plugins": ["static_layer", "inflation_layer"],
        "static_layer": {"plugin": "nav2_costmap_2d::StaticLayer"},
        "inflation_layer": {"plugin": "nav2_costmap_2d::InflationLayer"}}}},
}  # fmt: skip


def test_nav2_is_started_with_a_layer_and_depth_under_a_manager(tmp_path):
    prefix = Prefix(tmp_path)
    prefix.program("nav2_lifecycle_manager", "lifecycle_manager", f'exec {sys.executable} {TEST / "lifecycle_manager.py"} "$@"')
    called = prefix.launch_file("nav2_bringup", "navigation_launch.py", ["params_file", "use_sim_time", "namespace"])
    (tmp_path / "nav2.yaml").write_text(yaml.safe_dump(NAV2_PARAMETERS))
    arguments = ("robot:=turtlebot4", "robot_namespace:=tb4", f"nav2_params:={tmp_path / 'nav2.yaml'}", *SMALL)
    with (
        Launch(tmp_path, "nav2.launch.py", *arguments, prefix=prefix.folder) as launch,
        bench(namespace="tb4/depth_anything") as it,
    ):
        given = yaml.safe_load(content(it, called))
        assert given.pop("ros_namespace") == given.pop("namespace") == "/tb4"
        assert given["use_sim_time"] == "False" and not {"rviz", "log_level", "autostart", "robot"} & set(given)
        written = yaml.safe_load(Path(given["params_file"]).read_text())["local_costmap"]["local_costmap"]["ros__parameters"]
        assert written["plugins"] == ["voxel_layer", "depth_layer", "inflation_layer"]
        assert written["depth_layer"]["depth_mark"]["topic"] == "/tb4/depth_anything/depth/points"
        it.wait_ready()
        camera = StandIn(it, DRIVERS["turtlebot4"], namespace="/tb4")
        camera.wait_read()
        camera.expect_depth()
        assert "Managed nodes are active" in launch.log


def test_rtabmap_gets_topics_of_one_stamp_and_size(tmp_path):
    names = ["rgb_topic", "depth_topic", "camera_info_topic", "frame_id", "odom_topic", "visual_odometry", "args", "namespace"]
    names += ["use_sim_time", "rtabmap_viz", "approx_sync", "sync_queue_size", "topic_queue_size", "qos", "wait_for_transform"]
    prefix = Prefix(tmp_path)
    called = prefix.launch_file("rtabmap_launch", "rtabmap.launch.py", names)
    arguments = ("robot:=realsense", "odom_topic:=/wheels", *SMALL)
    with Launch(tmp_path, "rtabmap.launch.py", *arguments, prefix=prefix.folder), bench(namespace="depth_anything") as it:
        given = yaml.safe_load(content(it, called))
        assert given["odom_topic"] == "/wheels" and given["visual_odometry"] == "false" and given["approx_sync"] == "false"
        assert given["frame_id"] == "base_link" and given["args"].startswith("--Grid/RangeMax 4.0")
        assert not {"rviz", "log_level", "compressed"} & set(given)  # ours, which RTAB-Map would take for its own
        received = {}
        for name, kind in (("rgb_topic", Image), ("depth_topic", Image), ("camera_info_topic", CameraInfo)):
            it.node.create_subscription(kind, given[name], lambda m, name=name: received.setdefault(name, m), 5)
        camera = StandIn(it, DRIVERS["realsense"])
        it.wait_ready()
        camera.wait_read()

        def all_three():
            camera.send()
            it.spin(0.3)
            return len(received) == 3

        it.wait(all_three, "colour, depth and calibration")
        sizes = {(message.width, message.height) for message in received.values()}
        assert sizes == {DRIVERS["realsense"].size} and received["rgb_topic"].encoding == "rgb8"
        assert {m.header.frame_id for m in received.values()} == {DRIVERS["realsense"].frame}


@pytest.mark.parametrize(
    "method, package, remap",
    [
        ("image", "depthimage_to_laserscan", "depth:=depth/image"),
        ("cloud", "pointcloud_to_laserscan", "cloud_in:=depth/points"),
    ],
)
def test_laserscan_starts_the_converter(tmp_path, method, package, remap):
    prefix = Prefix(tmp_path)
    called = prefix.program(package, f"{package}_node")
    arguments = (f"method:={method}", "scan_frame:=mast", *SMALL)
    with Launch(tmp_path, "laserscan.launch.py", *arguments, prefix=prefix.folder), bench(namespace="depth_anything") as it:
        line = content(it, called)
        assert remap in line and "scan:=" not in line and "__ns:=/depth_anything" in line
        files = [Path(word) for word in line.split() if word.endswith(".yaml") or "launch_params" in word]
        given = {}
        for file in files:
            (node,) = yaml.safe_load(file.read_text()).values()
            given |= node["ros__parameters"]
        assert given["output_frame" if method == "image" else "target_frame"] == "mast" and given["range_max"] == 8.0


def test_laserscan_of_the_node_itself_and_the_arguments_of_scale(tmp_path):
    arguments = ("scan_frame:=mast", "base_frame:=floor", "scale:=sparse", "scale_topic:=/velodyne", "stabilizer:=true", *SMALL)
    with Launch(tmp_path, "laserscan.launch.py", *arguments), bench(namespace="depth_anything", listen=()) as it:
        it.wait_ready()
        expected = {"scan.frame": "mast", "base_frame": "floor", "scale.source": "sparse", "scale.topic": "/velodyne"}
        assert {name: it.get_parameter(name) for name in expected} == expected
        assert it.get_parameter("stabilizer.enabled") is True


def test_a_bag_is_played_and_the_launch_ends_with_it(tmp_path):
    """The camera is found in the bag; the depth node takes the bag's time."""
    bag = write_bag(tmp_path / "bag", camera_messages(frames=8, rate=100.0))
    with Launch(tmp_path, "replay.launch.py", f"bag:={bag}", *SMALL) as launch, bench(namespace="depth_anything") as it:
        it.wait_ready()
        assert it.get_parameter("use_sim_time") is True
        it.wait(lambda: launch.process.poll() is not None, f"the end: {launch.log}", 60)
        assert launch.process.returncode == 0, launch.log
        assert "the camera of the bag: image:=/camera/color/image_raw" in launch.log
        assert "8 images of 1 cameras: 8 with depth" in launch.log and "Traceback" not in launch.log
        assert len(it.received["depth/image"]) == 8


def test_rviz_and_the_optical_frame(tmp_path):
    prefix = Prefix(tmp_path)
    rviz, transform = prefix.program("rviz2", "rviz2"), prefix.program("tf2_ros", "static_transform_publisher")
    arguments = ("rviz:=true", "optical_parent:=camera_link", *SMALL)
    with Launch(tmp_path, "usb_cam.launch.py", *arguments, prefix=prefix.folder), bench(listen=()) as it:
        assert "-f camera_optical_frame" in content(it, rviz)
        line = content(it, transform)
        assert "--frame-id camera_link --child-frame-id camera_optical_frame" in line
        assert "--roll -1.57" in line and "--pitch 0 --yaw -1.57" in line


@pytest.mark.parametrize(
    "line, texts",
    [
        (("replay.launch.py",), ("there is no bag '': expected bag:=",)),
        (("replay.launch.py", f"bag:={LAUNCH}"), (f"'{LAUNCH}' is no bag: there is no .mcap and no .db3 in it",)),
        (("depth.launch.py", "robot:=r2d2"), ("r2d2", "realsense", "turtlebot4")),
        (("depth.launch.py", "params_file:=/no/such.yaml"), ("params_file '/no/such.yaml' does not exist",)),
        (("depth.launch.py", "input_size:=big"), ("input_size:=big is not a number",)),
        (("laserscan.launch.py", "method:=image"), ("needs depthimage_to_laserscan: apt install",)),
        (("multi_camera.launch.py", "cameras:=a,b", "image:=/x"), ("image:=/x is the same for all cameras",)),
        (("multi_camera.launch.py",), ("cameras is empty: expected names such as cameras:=front,left,rear",)),
        (("nav2.launch.py",), ("needs nav2_lifecycle_manager: apt install",)),
        (("rtabmap.launch.py",), ("needs rtabmap_launch: apt install",)),
        (("laserscan.launch.py", "model:=v2"), ("model:=v2 has no metres: take v2_metric_indoor",)),
        (("depth.launch.py", "optical_parent:=mast"), ("optical_parent needs the name of the optical frame",)),
    ],
)
def test_a_wrong_line_ends_at_once_and_says_what_is_wrong(line, texts, tmp_path):
    if texts[0].startswith("needs ") and has(texts[0].split()[1].rstrip(":")):
        pytest.skip("it is installed here")
    with Launch(tmp_path, *line) as launch:
        assert launch.process.wait(30) == 1
        assert all(text in launch.log for text in texts)
