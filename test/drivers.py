# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for the drivers of robots and cameras: what they publish, from a table written for the tests."""

import time
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros import DepthProcess, camera_info, depth_of, picture
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

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
    info_frame: str = ""  # of camera_info, where it is not the image's
    stamped: bool = True


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
    "rosbot": Driver(
        "/oak/rgb/color", "/oak/stereo/camera_info", "oak_rgb_camera_frame", "rgb8", "oak_rgb_camera_optical_frame"
    ),
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
        "Drone1/front_center_optical",
        "bgr8",
        info_frame="front_center_optical",
    ),
    "kitti": Driver(
        "/kitti/camera_color_left/image_raw",
        "/kitti/camera_color_left/camera_info",
        "camera_color_left",
        "bgr8",
        "camera_color_left",
        stale_d=True,
    ),
    "nuscenes": Driver("/cam_front/raw", "", "", "bgr8", "cam_front", stamped=False),
}


class StandIn:
    """Publishes as a driver does, its topics below the robot's namespace if there is one."""

    def __init__(self, it, driver, namespace=""):
        self.it, self.driver, self.rgb = it, driver, picture(*driver.size)
        self.images = it.node.create_publisher(Image, namespace + driver.image, _qos(driver.qos))
        self.infos = it.node.create_publisher(CameraInfo, namespace + driver.info, _qos(driver.qos)) if driver.info else None

    def wait_read(self, seconds=30.0):
        self.it.wait(
            lambda: self.images.get_subscription_count() and (not self.infos or self.infos.get_subscription_count()),
            "a reader",
            seconds,
        )

    def send(self):
        driver, (width, height) = self.driver, self.driver.size
        header = Header(frame_id=driver.frame)
        if driver.stamped:
            header.stamp.sec, header.stamp.nanosec = divmod(time.time_ns(), 10**9)
        if self.infos:
            info = camera_info(Header(stamp=header.stamp, frame_id=driver.info_frame or driver.frame), width, height)
            if driver.barrel or driver.stale_d:
                info.d = [-0.35, 0.12, 0.0, 0.0, 0.0]
                info.p[0] = info.p[5] = 0.75 * width
            self.infos.publish(info)
        data = _encoded(self.rgb, driver.encoding)
        image = Image(header=header, width=width, height=height, encoding=driver.encoding, step=data.strides[0])
        image.data.frombytes(np.ascontiguousarray(data).tobytes())
        self.images.publish(image)

    def expect_depth(self):
        """Depth, calibration and cloud come out, of the right size, in the right frame, with the right focal length."""
        it, driver = self.it, self.driver
        for _ in range(40):
            self.send()
            it.spin(0.3)
            if all(it.received[topic] for topic in outputs_of(driver)):
                break
        check_outputs(it, driver)
        if driver.info:
            info = next(i for i in it.received["depth/camera_info"] if not any(i.d))
            assert info.k[0] == pytest.approx((0.75 if driver.barrel or driver.stale_d else 0.9) * driver.size[0])


def outputs_of(driver):
    return {"depth/image", "depth/color"} | ({"depth/points", "depth/camera_info"} if driver.info else set())


def check_outputs(it, driver):
    """Everything has come, in the right frame, of the right size, and most of it valid."""
    wanted, (width, height) = outputs_of(driver), driver.size
    assert all(it.received[topic] for topic in wanted), (dict(it.received).keys(), it.message)
    for topic in wanted:
        message = it.received[topic][-1]
        assert message.header.frame_id == (driver.out or driver.frame)
        assert (message.width, message.height) == driver.size
    assert np.isfinite(depth_of(it.received["depth/image"][-1])).mean() > 0.5
    if driver.info:
        cloud = it.received["depth/points"][-1]
        z = np.frombuffer(cloud.data, np.float32).reshape(height, width, 4)[..., 2]
        assert np.isfinite(z).mean() > 0.5


def camera_player(driver, folder):
    """camera_player in the driver's place, in a process of its own; None where it cannot be like that driver."""
    if not driver.info or driver.barrel or driver.stale_d or driver.info_frame or not driver.stamped or driver.qos == LATCHED:
        return None
    folder.mkdir()
    reliability = "best_effort" if driver.qos == BEST_EFFORT else "reliable"
    remaps = ("-r", f"camera/image_raw:={driver.image}", "-r", f"camera/camera_info:={driver.info}")
    qos = {f"qos_overrides.{topic}.publisher.reliability": reliability for topic in (driver.image, driver.info)}
    return DepthProcess(
        folder,
        *remaps,
        command=("-m", "depth_anything_ros.node.camera_player"),
        scenes=1,
        frames=1,
        width=driver.size[0],
        height=driver.size[1],
        frame_id=driver.frame,
        encoding=driver.encoding,
        rate=5.0,
        **qos,
    )


def _encoded(rgb, encoding):
    codes = {"bgr8": cv2.COLOR_RGB2BGR, "bgra8": cv2.COLOR_RGB2BGRA, "mono8": cv2.COLOR_RGB2GRAY}
    return rgb if encoding == "rgb8" else cv2.cvtColor(rgb, codes[encoding])


def _qos(kind):
    profile = QoSProfile(depth=1)
    profile.reliability = ReliabilityPolicy.BEST_EFFORT if kind == BEST_EFFORT else ReliabilityPolicy.RELIABLE
    profile.durability = DurabilityPolicy.TRANSIENT_LOCAL if kind == LATCHED else DurabilityPolicy.VOLATILE
    return profile
