# SPDX-License-Identifier: Apache-2.0
"""Every preset against a camera that behaves as its driver does: topics, encoding, frame and QoS from a table written here."""

import time
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import yaml
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros import DepthProcess, bench, camera_info, depth_of, picture, stamp_of
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from depth_anything_ros.node.parameters import CAMERA_TABLE, TABLE

FOLDER = Path(__file__).resolve().parent.parent / "config" / "robots"
SMALL = ("-p", "model:=demo", "-p", "input_size:=96", "-p", "device:=cpu")
RELIABLE, BEST_EFFORT, LATCHED = "reliable", "best effort", "reliable and transient local"


class Driver(NamedTuple):
    """What a driver publishes, and in which frame depth has to come out."""

    image: str
    info: str  # empty: none
    frame: str
    encoding: str
    out: str = ""  # frame of the outputs; empty: the driver's own is optical
    qos: str = RELIABLE
    size: tuple[int, int] = (160, 120)
    compressed: str = ""
    barrel: bool = False  # distorted, and not rectified
    stale_d: bool = False  # rectified, with D still set


DRIVERS = {
    "realsense": Driver(
        "/camera/camera/color/image_raw", "/camera/camera/color/camera_info", "camera_color_optical_frame", "rgb8"
    ),
    "zed": Driver(
        "/zed/zed_node/rgb/color/rect/image",
        "/zed/zed_node/rgb/color/rect/camera_info",
        "zed_left_camera_frame_optical",
        "bgra8",
    ),
    "zed_legacy": Driver(
        "/zed/zed_node/rgb/image_rect_color", "/zed/zed_node/rgb/camera_info", "zed_left_camera_optical_frame", "bgra8"
    ),
    "oak": Driver("/oak/rgb/image_raw", "/oak/rgb/camera_info", "oak_rgb_camera_optical_frame", "bgr8"),
    "usb_cam": Driver(
        "/camera1/image_raw",
        "/camera1/camera_info",
        "camera",
        "rgb8",
        "camera_optical_frame",
        compressed="/camera1/image_compressed",
    ),
    "v4l2_camera": Driver("/image_raw", "/camera_info", "camera", "rgb8", "camera_optical_frame"),
    "gscam": Driver("/camera/image_raw", "/camera/camera_info", "camera_frame", "rgb8", "camera_optical_frame"),
    "camera_ros": Driver("/camera/image_raw", "/camera/camera_info", "camera", "bgr8", "camera_optical_frame"),
    "image_publisher": Driver("/camera/image_raw", "/camera/camera_info", "camera", "bgr8", "camera_optical_frame"),
    "turtlebot3": Driver("/camera/image_raw", "/camera/camera_info", "camera", "rgb8", "camera_rgb_optical_frame"),
    "turtlebot3_sim": Driver(
        "/camera/image_raw", "/camera/camera_info", "camera_rgb_frame", "rgb8", "camera_rgb_optical_frame"
    ),
    "turtlebot4": Driver(
        "/oakd/rgb/preview/image_raw", "/oakd/rgb/preview/camera_info", "oakd_rgb_camera_optical_frame", "bgr8", size=(250, 250)
    ),
    "turtlebot4_sim": Driver(
        "/oakd/rgb/preview/image_raw", "/oakd/rgb/preview/camera_info", "oakd_rgb_camera_optical_frame", "rgb8", size=(320, 240)
    ),
    "clearpath": Driver(
        "/sensors/camera_0/color/image",
        "/sensors/camera_0/color/camera_info",
        "camera_0_color_optical_frame",
        "rgb8",
        compressed="/sensors/camera_0/color/compressed",
    ),
    "go2": Driver("/camera/image_raw", "/camera/camera_info", "front_camera", "bgr8", "front_camera", BEST_EFFORT, barrel=True),
    "spot": Driver(
        "/camera/frontleft/image",
        "/camera/frontleft/camera_info",
        "frontleft_fisheye",
        "mono8",
        "frontleft_fisheye",
        LATCHED,
        compressed="/camera/frontleft/compressed",
    ),
    "stretch": Driver(
        "/camera/color/image_raw", "/camera/color/camera_info", "camera_color_optical_frame", "rgb8", size=(120, 160)
    ),
    "rosbot": Driver("/camera/color/image_raw", "/camera/color/camera_info", "camera_color_optical_frame", "rgb8"),
    "tiago": Driver(
        "/head_front_camera/rgb/image_raw", "/head_front_camera/rgb/camera_info", "head_front_camera_rgb_optical_frame", "bgr8"
    ),
    "px4_gazebo": Driver("/camera/image_raw", "/camera/camera_info", "camera_link", "rgb8", "camera_optical_frame"),
    "gazebo": Driver("/camera/image_raw", "/camera/camera_info", "camera_optical_frame", "rgb8"),
    "isaac_sim": Driver("/rgb", "/camera_info", "sim_camera", "rgb8", "sim_camera"),
    "carla": Driver(
        "/carla/ego_vehicle/rgb_front/image",
        "/carla/ego_vehicle/rgb_front/camera_info",
        "ego_vehicle/rgb_front",
        "bgra8",
        "ego_vehicle/rgb_front",
    ),
    "airsim": Driver(
        "/airsim_node/Drone1/front_center_Scene/image",
        "/airsim_node/Drone1/front_center_Scene/camera_info",
        "front_center_optical",
        "bgr8",
    ),
    "kitti": Driver(
        "/kitti/camera_color_left/image_raw",
        "/kitti/camera_color_left/camera_info",
        "camera_color_left",
        "bgr8",
        "camera_color_left",
        stale_d=True,
    ),
    "nuscenes": Driver("/cam_front/raw", "", "cam_front", "bgr8", "cam_front"),
}


def parameters_of(robot):
    return yaml.safe_load((FOLDER / f"{robot}.yaml").read_text())["/**"]["ros__parameters"]


def test_every_preset_has_a_driver_to_be_tried_against():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(DRIVERS)


@pytest.mark.parametrize("robot", DRIVERS)
def test_keys_are_parameters_and_facts_have_a_source(robot):
    parameters, text = parameters_of(robot), (FOLDER / f"{robot}.yaml").read_text()
    assert set(parameters) - {"camera"} <= {row.name for row in TABLE}
    assert set(parameters["camera"]) <= {row.name for row in CAMERA_TABLE}
    for name in ("image", "camera_info", "compressed"):
        assert parameters["camera"].get(name, "/x").startswith("/")
    assert "\n# Source: " in text
    assert parameters["model"].startswith("v2_metric")


def encode(rgb, encoding):
    codes = {"bgr8": cv2.COLOR_RGB2BGR, "bgra8": cv2.COLOR_RGB2BGRA, "mono8": cv2.COLOR_RGB2GRAY}
    return rgb if encoding == "rgb8" else cv2.cvtColor(rgb, codes[encoding])


def publisher_qos(kind):
    profile = QoSProfile(depth=1)
    profile.reliability = ReliabilityPolicy.BEST_EFFORT if kind == BEST_EFFORT else ReliabilityPolicy.RELIABLE
    profile.durability = DurabilityPolicy.TRANSIENT_LOCAL if kind == LATCHED else DurabilityPolicy.VOLATILE
    return profile


@pytest.mark.parametrize("robot", DRIVERS)
def test_camera_to_depth(robot, tmp_path):
    """Depth, calibration and cloud come out of the node that was started with nothing but the preset and a small model."""
    driver = DRIVERS[robot]
    width, height = driver.size
    rgb = picture(width, height)
    with DepthProcess(tmp_path, "--params-file", str(FOLDER / f"{robot}.yaml"), *SMALL) as node, bench() as it:
        images = it.node.create_publisher(Image, driver.image, publisher_qos(driver.qos))
        infos = it.node.create_publisher(CameraInfo, driver.info, publisher_qos(driver.qos)) if driver.info else None
        it.wait_ready()
        it.wait(lambda: images.get_subscription_count() and (not infos or infos.get_subscription_count()), "a reader")

        def send():
            header = Header(frame_id=driver.frame)
            header.stamp.sec, header.stamp.nanosec = divmod(time.time_ns(), 10**9)
            if infos:
                info = camera_info(header, width, height)
                if driver.barrel or driver.stale_d:
                    info.d = [-0.35, 0.12, 0.0, 0.0, 0.0]
                    info.p[0] = info.p[5] = 0.75 * width
                infos.publish(info)
            data = encode(rgb, driver.encoding)
            step = data.strides[0]
            image = Image(header=header, width=width, height=height, encoding=driver.encoding, step=step)
            image.data.frombytes(np.ascontiguousarray(data).tobytes())
            images.publish(image)
            it.spin(0.3)

        wanted = {"depth/image", "depth/color"} | ({"depth/points", "depth/camera_info"} if driver.info else set())
        for _ in range(20):
            send()
            if all(it.received[topic] for topic in wanted):
                break
        assert all(it.received[topic] for topic in wanted), (dict(it.received).keys(), it.message, node.log)
        depth = it.received["depth/image"][-1]
        assert (depth.width, depth.height) == driver.size and np.isfinite(depth_of(depth)).mean() > 0.5
        assert {it.received[topic][-1].header.frame_id for topic in wanted} == {driver.out or driver.frame}
        if driver.info:
            info = next(i for i in it.received["depth/camera_info"] if not any(i.d))
            expected = 0.75 * width if driver.barrel or driver.stale_d else 0.9 * width
            assert info.k[0] == pytest.approx(expected)
            cloud = it.received["depth/points"][-1]
            assert (cloud.width, cloud.height) == driver.size
            z = np.frombuffer(cloud.data, np.float32).reshape(height, width, 4)[..., 2]
            assert np.isfinite(z).mean() > 0.5
        assert "Traceback" not in node.log and "refused" not in node.log


@pytest.mark.parametrize("robot", [robot for robot, driver in DRIVERS.items() if driver.compressed])
def test_compressed_topics_with_names_of_their_own(robot, tmp_path):
    driver = DRIVERS[robot]
    with DepthProcess(tmp_path, "--params-file", str(FOLDER / f"{robot}.yaml"), *SMALL), bench() as it:
        images = it.node.create_publisher(CompressedImage, driver.compressed, 1)
        it.wait_ready()
        it.wait(lambda: images.get_subscription_count(), "a reader")
        message = CompressedImage(format="jpeg")
        message.header.frame_id = driver.frame
        message.header.stamp.sec = 5
        message.data.frombytes(cv2.imencode(".jpg", picture())[1].tobytes())
        for _ in range(20):
            images.publish(message)
            it.spin(0.3)
            if it.received["depth/image"]:
                break
        assert stamp_of(it.received["depth/image"][-1]) == 5 * 10**9
