# SPDX-License-Identifier: Apache-2.0
"""A camera in a process of its own: one picture again and again, each with the time at which it was published."""

from __future__ import annotations

import argparse
import sys
import time

import rclpy
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from ..geometry import Camera
from ..messages.camera_info import info_of_camera
from ..messages.outgoing import image_message
from ..node.process import use_large_shared_memory
from .scene import picture


def main(args: list[str] | None = None) -> int:
    """Publish `image` and `camera_info` until interrupted."""
    parser = argparse.ArgumentParser(prog="camera", description="A camera for depth_benchmark.")
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--rate", type=float, default=10.0)
    options, ros = parser.parse_known_args(args)
    use_large_shared_memory()
    rclpy.init(args=ros)
    node = rclpy.create_node("benchmark_camera")
    images, infos = (node.create_publisher(kind, topic, 1) for kind, topic in ((Image, "image"), (CameraInfo, "camera_info")))
    image = image_message(Header(frame_id="camera_optical_frame"), picture(options.width, options.height), "rgb8")
    info = info_of_camera(image.header, Camera.from_fov(options.width, options.height, 70.0))
    due = time.monotonic()
    try:
        while rclpy.ok():
            stamp = image.header.stamp
            stamp.sec, stamp.nanosec = divmod(time.time_ns(), 10**9)
            info.header = image.header
            infos.publish(info)
            images.publish(image)
            due = max(due + 1 / options.rate, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
    except KeyboardInterrupt:
        pass
    rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
