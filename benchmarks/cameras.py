#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Three cameras of different sizes and rates on one network: rate, age and drops of each, also when one is silent or broken.

    python benchmarks/cameras.py [--seconds 15]

One process publishes for all three, one depth_node with the embedded model serves them. Age: from the image's stamp to the
arrival of its depth. Phases: as they are; `left` sends truncated images and `rear` is silent; all three at 30 Hz, which is
more than the machine can do.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time

os.environ.setdefault("ROS_DOMAIN_ID", str(100 + os.getpid() % 50))
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
os.environ.setdefault("ROS_LOCALHOST_ONLY", "1")

import numpy as np
import rclpy
from rclpy.node import Node
from sensor_msgs.msg import Image

from depth_anything_ros.demo.families import HELD_OUT_SEED
from depth_anything_ros.demo.sources import photographed_scene
from depth_anything_ros.node.process import use_large_shared_memory

CAMERAS = {"front": (640, 480, 15.0), "left": (320, 240, 10.0), "rear": (800, 600, 5.0)}  # width, height, Hz


class Rig(Node):
    """The cameras, and what comes back of each."""

    def __init__(self):
        super().__init__("cameras_benchmark")
        self.ages: dict[str, list[float]] = {name: [] for name in CAMERAS}
        self.sent = dict.fromkeys(CAMERAS, 0)
        self.images, self.senders = {}, {}
        for index, (name, (width, height, _)) in enumerate(CAMERAS.items()):
            rgb = photographed_scene(HELD_OUT_SEED + index, "room", width, height).rgb
            message = Image(height=height, width=width, encoding="rgb8", step=3 * width)
            message.header.frame_id = f"{name}_optical_frame"
            message.data.frombytes(rgb.tobytes())
            self.images[name] = message
            self.senders[name] = self.create_publisher(Image, f"/{name}/image", 1)
            self.create_subscription(Image, f"/{name}/depth/image", lambda m, name=name: self._receive(name, m), 10)

    def _receive(self, name: str, message: Image) -> None:
        stamp = message.header.stamp.sec + message.header.stamp.nanosec / 1e9
        self.ages[name].append(time.time() - stamp)

    def send(self, name: str, truncated: bool = False) -> None:
        """One image, stamped now."""
        message = self.images[name]
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(time.time_ns(), 10**9)
        if truncated:
            message = Image(
                header=message.header, height=message.height, width=message.width, encoding="rgb8", step=message.step
            )
            message.data.frombytes(bytes(1000))
        self.senders[name].publish(message)
        self.sent[name] += 1

    def settle(self) -> None:
        """Let what is under way arrive."""
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            rclpy.spin_once(self, timeout_sec=0.01)

    def play(self, title: str, seconds: float, rates: dict[str, float], truncated: str = "") -> None:
        """Publish for a while and print a row for each camera."""
        self.settle()
        due = dict.fromkeys(rates, time.monotonic())
        for name in CAMERAS:
            self.ages[name].clear()
            self.sent[name] = 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for name, rate in rates.items():
                if time.monotonic() >= due[name]:
                    due[name] += 1 / rate
                    self.send(name, name == truncated)
            rclpy.spin_once(self, timeout_sec=0.001)
        self.settle()
        print(title)
        for name, (width, height, _) in CAMERAS.items():
            ages = 1000 * np.asarray(self.ages[name] or [np.nan])
            p50, p99 = np.percentile(ages, [50, 99])
            got, sent = len(self.ages[name]), self.sent[name]
            print(
                f"  {name:6} {width}x{height}  sent {sent / seconds:5.1f} Hz  depth {got / seconds:5.1f} Hz  "
                f"without depth {sent - got:4d}  age p50 {p50:4.0f} ms  p99 {p99:4.0f} ms"
            )


def main() -> None:
    """Start the node, play all phases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=15, help="of each phase")
    args = parser.parse_args()
    use_large_shared_memory()
    command = [sys.executable, "-m", "depth_anything_ros.node.depth_node", "--ros-args", "--log-level", "error"]
    process = subprocess.Popen([*command, "-p", "model:=demo", "-p", "cameras:=[front, left, rear]"])
    try:
        rclpy.init()
        rig, own = Rig(), {name: rate for name, (_, _, rate) in CAMERAS.items()}
        end = time.monotonic() + 60
        while not all(rig.ages.values()):
            if time.monotonic() > end:
                raise SystemExit("the depth node does not answer")
            for name in CAMERAS:
                rig.send(name)
            rclpy.spin_once(rig, timeout_sec=0.2)
        rig.play("each at its own rate", args.seconds, own)
        rig.play("left truncated, rear silent", args.seconds, {"front": 15.0, "left": 10.0}, truncated="left")
        rig.play("all at 30 Hz", args.seconds, dict.fromkeys(CAMERAS, 30.0))
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
