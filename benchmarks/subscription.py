#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Is a raw subscription, decoded by us, slower than a typed one? CPU time of a reader process for each image, in turns.

    python benchmarks/subscription.py

Prints milliseconds of CPU for each message and the ratio typed / raw, at 640 x 480 and 1920 x 1080, with and without
rclpy's field checks (which Humble always makes). Sender and reader are processes of their own, over DDS on this host.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

os.environ.setdefault("ROS_DOMAIN_ID", "59")
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
MESSAGES, RATE = 90, 30.0


def send(width: int, height: int) -> None:
    """Publish rgb8 images until killed."""
    import numpy as np
    import rclpy
    from sensor_msgs.msg import Image

    from depth_anything_ros.messages.cdr import ImageHeader
    from depth_anything_ros.messages.outgoing import image_message, ros_header
    from depth_anything_ros.node.process import use_large_shared_memory

    use_large_shared_memory()
    rclpy.init()
    node = rclpy.create_node("sender")
    publisher = node.create_publisher(Image, "image", 1)
    image = image_message(ros_header(ImageHeader(1, 2, "camera")), np.zeros((height, width, 3), np.uint8), "rgb8")
    while True:
        publisher.publish(image)
        time.sleep(1 / RATE)


def read(raw: bool) -> None:
    """Receive MESSAGES images as an array each and print the CPU time that took."""
    import numpy as np
    import rclpy
    from sensor_msgs.msg import Image

    from depth_anything_ros.inference import keep_large_buffers
    from depth_anything_ros.messages.cdr import read_image
    from depth_anything_ros.messages.images import image_to_rgb
    from depth_anything_ros.node.process import use_large_shared_memory

    use_large_shared_memory()
    keep_large_buffers()
    rclpy.init()
    node, count = rclpy.create_node("reader"), 0

    def on_raw(cdr):
        nonlocal count
        count += image_to_rgb(read_image(cdr)).shape[2] == 3

    def on_typed(image):
        nonlocal count
        count += np.frombuffer(image.data, np.uint8).reshape(image.height, image.width, 3).shape[2] == 3

    subscription = node.create_subscription(Image, "image", on_raw if raw else on_typed, 1, raw=raw)
    while count < 10:
        rclpy.spin_once(node)
    started, count = time.process_time(), 0
    while count < MESSAGES:
        rclpy.spin_once(node)
    print((time.process_time() - started) / MESSAGES * 1000)
    assert subscription


def measure(raw: bool, checks: bool) -> float:
    """One reader process, alone with its sender."""
    environment = os.environ | {"ROS_PYTHON_CHECK_FIELDS": "1" if checks else "0"}
    command = [sys.executable, __file__, "read", str(int(raw))]
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()[-1])


def main() -> None:
    """Interleave the two kinds of reader and compare medians."""
    print(f"{'image':>12} {'field checks':>13} {'typed ms':>9} {'raw ms':>8} {'typed / raw':>12}")
    for width, height in ((640, 480), (1920, 1080)):
        sender = subprocess.Popen([sys.executable, __file__, "send", str(width), str(height)])
        try:
            for checks in (False, True):
                turns = [(measure(False, checks), measure(True, checks)) for _ in range(3)]
                typed, raw = (sorted(column)[1] for column in zip(*turns))
                print(f"{width}x{height:<6} {checks!s:>13} {typed:9.2f} {raw:8.2f} {typed / raw:12.2f}", flush=True)
        finally:
            sender.kill()
            sender.wait()


if __name__ == "__main__":
    if sys.argv[1:2] == ["send"]:
        send(int(sys.argv[2]), int(sys.argv[3]))
    elif sys.argv[1:2] == ["read"]:
        read(sys.argv[2] == "1")
    else:
        main()
