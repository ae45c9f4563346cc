#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How well the embedded model measures scenes that it never saw, through the whole node, beside what needs no network.

    python benchmarks/embedded_model.py [--scenes 24] [--tum FOLDER] [--output out/embedded_model]

Held-out seeds of each family and the family that was held out of training, 640 x 480, without alignment, pixels nearer
than 20 m: every frame goes over DDS into a depth_node process, and its depth/image comes back. Means over scenes. Then
frames per second with a camera at 30 Hz, and with --tum pairs N.png, N_depth.png of TUM RGB-D (16 bit, 5000 per metre)
after scale-and-shift alignment in inverse depth. Pictures of the best, middle and worst scene of each family in --output.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("ROS_DOMAIN_ID", str(100 + os.getpid() % 50))
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
os.environ.setdefault("ROS_LOCALHOST_ONLY", "1")

import cv2
import numpy as np
import rclpy
from rclpy.node import Node
from sensor_msgs.msg import Image

from depth_anything_ros.demo.families import FAMILIES, HELD_OUT_FAMILY, HELD_OUT_SEED, PLACES, random_scene
from depth_anything_ros.demo.raycast import render
from depth_anything_ros.demo.scenes import VERSION
from depth_anything_ros.demo.sources import photographed_scene
from depth_anything_ros.node.process import use_large_shared_memory

MAX_DEPTH, SIZE = 20.0, (640, 480)
FIRST_SEED = HELD_OUT_SEED + 1000  # not those that training prints figures of
TRAINING_SCENES = 1000  # that the baselines are fitted on
FIT_SIZE = (64, 48)


class Camera(Node):
    """Sends images to the depth node and waits for what comes back."""

    def __init__(self):
        super().__init__("embedded_model_benchmark")
        self.depth: dict[int, np.ndarray] = {}
        self.images = self.create_publisher(Image, "/camera/image_raw", 1)
        self.create_subscription(Image, "/depth/image", self._receive, 10)

    def _receive(self, message: Image) -> None:
        self.depth[message.header.stamp.sec] = np.frombuffer(message.data, np.float32).reshape(message.height, message.width)

    def measure(self, rgb: np.ndarray, seconds: float = 60.0) -> np.ndarray:
        """Depth (H, W) in metres of an image (H, W, 3) uint8; sent again every two seconds until it is answered."""
        message = Image(height=rgb.shape[0], width=rgb.shape[1], encoding="rgb8", step=3 * rgb.shape[1])
        message.header.frame_id = "camera_optical_frame"
        message.data.frombytes(rgb.tobytes())
        for _ in range(int(seconds / 2)):
            message.header.stamp.sec = stamp = int(time.time())
            self.images.publish(message)
            end = time.monotonic() + 2
            while time.monotonic() < end:
                rclpy.spin_once(self, timeout_sec=0.02)
                if stamp in self.depth:
                    return self.depth.pop(stamp)
        raise SystemExit("the depth node does not answer")


def errors(depth: np.ndarray, truth: np.ndarray) -> tuple[float, float, float]:
    """AbsRel, delta1 and AbsRel after division by the median ratio, over the pixels nearer than 20 m."""
    depth, known = np.where(np.isfinite(depth), depth, MAX_DEPTH), truth < MAX_DEPTH  # out of range is far
    ratio = depth[known] / truth[known]
    return (
        float(np.abs(ratio - 1).mean()),
        float((np.maximum(ratio, 1 / ratio) < 1.25).mean()),
        float(np.abs(ratio / np.median(ratio) - 1).mean()),
    )


class Baselines:
    """Depth without looking at the image, fitted on training scenes so that AbsRel is least."""

    def __init__(self):
        width, height = FIT_SIZE
        depths, focals = [], []
        for seed in range(TRAINING_SCENES):
            scene, view = random_scene(seed)
            depths.append(render(scene, view, width, height, shadows=False).depth[0].numpy())
            focals.append(float(view.focal))
        depths = np.stack(depths)
        self.constant = self._best_constant(depths)
        rows = (np.arange(height) - (height - 1) / 2) / width
        best = np.inf
        for camera_height in np.linspace(0.2, 1.4, 25):
            for pitch in np.radians(np.linspace(-4, 20, 25)):
                planes = self._planes(camera_height, pitch, rows, np.asarray(focals))
                for cap in (2, 2.5, 3, 3.5, 4, 5, 6, 8):
                    absrel = self._absrel(np.minimum(planes, cap)[:, :, None], depths[:, :, ::4])
                    if absrel < best:
                        best, self.plane = absrel, (camera_height, pitch, cap)

    @staticmethod
    def _best_constant(depths: np.ndarray) -> np.ndarray:
        """The value of each pixel with the least sum of |c / t - 1|: the median of t with weights 1 / t."""
        order = np.sort(depths, axis=0)
        weights = np.where(order < MAX_DEPTH, 1 / order, 0.0).cumsum(0)
        middle = (weights >= weights[-1] / 2).argmax(0)
        return np.take_along_axis(order, middle[None], 0)[0]

    @staticmethod
    def _planes(camera_height, pitch, rows, focals):
        """Depth (scenes, rows) of level ground: height / (sin pitch + y cos pitch), +Inf at and above the horizon."""
        down = np.sin(pitch) + rows[None] / focals[:, None] * np.cos(pitch)
        return np.where(down > 1e-6, camera_height / np.maximum(down, 1e-6), np.inf)

    @staticmethod
    def _absrel(predicted, depths):
        known = depths < MAX_DEPTH
        return np.abs(np.where(known, predicted / depths, 1.0) - 1).sum() / known.sum()

    def predict(self, focal: float) -> dict[str, np.ndarray]:
        """Both baselines for an image of `SIZE`; `focal` in image widths."""
        width, height = SIZE
        rows = (np.arange(height) - (height - 1) / 2) / width
        plane = np.minimum(self._planes(*self.plane[:2], rows, np.array([focal]))[0], self.plane[2])
        return {
            "best constant depth per pixel": cv2.resize(self.constant, SIZE),
            "fitted ground plane": np.repeat(plane[:, None], width, axis=1),
        }


def align(predicted: np.ndarray, truth: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Depth after the least-squares scale and shift of inverse depth."""
    inverse = 1 / predicted
    fit = np.stack([inverse[known], np.ones(known.sum())], -1)
    scale, shift = np.linalg.lstsq(fit, 1 / truth[known], rcond=None)[0]
    return 1 / np.maximum(scale * inverse + shift, 1e-3)


def picture(rgb: np.ndarray, truth: np.ndarray, depth: np.ndarray, text: str) -> np.ndarray:
    """Image, truth and depth side by side, (240, 960, 3) BGR; logarithmic colours from 0.4 to 20 m."""
    tiles = [rgb[..., ::-1]]
    for value in (truth, depth):
        near = 1 - np.log(np.clip(np.nan_to_num(value, nan=0.4), 0.4, MAX_DEPTH) / 0.4) / np.log(MAX_DEPTH / 0.4)
        tiles.append(cv2.applyColorMap((near * 255).astype(np.uint8), cv2.COLORMAP_TURBO))
    row = np.concatenate([cv2.resize(tile, (320, 240), interpolation=cv2.INTER_AREA) for tile in tiles], axis=1)
    cv2.putText(row, text, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    return row


def held_out(camera: Camera, scenes: int, output: Path) -> Baselines:
    """Print the table of families and write their pictures."""
    baselines = Baselines()
    print(f"scene generator version {VERSION}, {scenes} scenes per family\n")
    print("| scenes | AbsRel | delta1 | AbsRel, median aligned | best constant per pixel | fitted ground plane |")
    print("|---|---|---|---|---|---|")
    measured = {}
    for family in (*FAMILIES, HELD_OUT_FAMILY):
        rows, pictures = [], []
        for seed in range(FIRST_SEED, FIRST_SEED + scenes):
            shot = photographed_scene(seed, family, *SIZE)
            depth = camera.measure(shot.rgb)
            found = errors(depth, shot.depth)
            flat = [errors(value, shot.depth)[0] for value in baselines.predict(shot.focal / SIZE[0]).values()]
            rows.append((*found, *flat))
            pictures.append((found[0], picture(shot.rgb, shot.depth, depth, f"{family} {seed}: AbsRel {found[0]:.3f}")))
        pictures.sort(key=lambda pair: pair[0])
        chosen = [pictures[i][1] for i in (0, len(pictures) // 2, -1)]
        cv2.imwrite(str(output / f"{family}.png"), np.concatenate(chosen))
        print_row(family + (", never trained on" if family == HELD_OUT_FAMILY else ""), rows)
        measured[family] = rows
    print_row("all trained families", sum((measured[family] for family in FAMILIES), []))
    print_row("places: " + ", ".join(PLACES), sum((measured[family] for family in PLACES), []))
    return baselines


def print_row(name: str, rows: list[tuple]) -> None:
    """One line of the table."""
    absrel, delta1, aligned, constant, plane = np.mean(rows, axis=0)
    print(f"| {name} | {absrel:.3f} | {delta1:.2f} | {aligned:.3f} | {constant:.3f} | {plane:.3f} |", flush=True)


def tum(camera: Camera, folder: Path, baselines: Baselines) -> None:
    """Print the real pairs beside the constant map, both aligned."""
    print("\n| TUM pair | AbsRel, aligned | delta1, aligned | AbsRel of the constant map, aligned | AbsRel, not aligned |")
    print("|---|---|---|---|---|")
    for path in sorted(folder.glob("*_depth.png")):
        truth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.float64) / 5000
        rgb = cv2.imread(str(path).replace("_depth", ""))[..., ::-1]
        known = truth > 0
        depth = camera.measure(np.ascontiguousarray(rgb)).astype(np.float64)
        constant = cv2.resize(baselines.constant, truth.shape[::-1]).astype(np.float64)
        (absrel, delta1, _), (flat, *_), (raw, *_) = (
            errors(value, np.where(known, truth, np.inf))
            for value in (align(depth, truth, known), align(constant, truth, known), depth)
        )
        print(f"| {path.stem.removesuffix('_depth')} | {absrel:.3f} | {delta1:.2f} | {flat:.3f} | {raw:.3f} |")


def speed(camera: Camera, seconds: float = 15.0) -> None:
    """Print depth images per second with a camera of 30 Hz in a process of its own."""
    parameters = {"rate": 30.0, "scenes": 1, "frames": 4, "wait_for_reader": True}
    player = start("camera_player", parameters)
    try:
        stamps: list[float] = []
        camera.create_subscription(Image, "/depth/image", lambda message: stamps.append(time.monotonic()), 10)
        end = time.monotonic() + 120
        while not stamps and time.monotonic() < end:
            rclpy.spin_once(camera, timeout_sec=0.1)
        end = time.monotonic() + seconds
        stamps.clear()
        while time.monotonic() < end:
            rclpy.spin_once(camera, timeout_sec=0.1)
        print(f"\n640 x 480 at 30 Hz, {os.cpu_count()} cores for all processes: {len(stamps) / seconds:.1f} depth images/s")
    finally:
        stop(player)


def start(name: str, parameters: dict[str, object]) -> subprocess.Popen:
    """One of our commands as a process."""
    arguments = [part for key, value in parameters.items() for part in ("-p", f"{key}:={str(value).lower()}")]
    command = [str(Path(sys.executable).parent / name), "--ros-args", "--log-level", "warn", *arguments]
    return subprocess.Popen([*command, "-r", "image:=/camera/image_raw"])


def stop(process: subprocess.Popen) -> None:
    """End a process that `start` started."""
    process.send_signal(signal.SIGINT)
    process.wait(20)


def main() -> None:
    """Everything that the docstring names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=24, help="of each family")
    parser.add_argument("--tum", type=Path, help="folder with N.png and N_depth.png")
    parser.add_argument("--checkpoint", default="", help="other weights than the shipped ones")
    parser.add_argument("--output", type=Path, default=Path("out/embedded_model"))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    use_large_shared_memory()
    rclpy.init()
    weights = {"checkpoint": args.checkpoint} if args.checkpoint else {}
    # Every pixel counts: the figures are the network's, with what it leaves between surfaces.
    node = start("depth_node", {"model": "demo", "device": "cpu", "edges.tolerance": 0.0, **weights})
    try:
        camera = Camera()
        baselines = held_out(camera, args.scenes, args.output)
        if args.tum:
            tum(camera, args.tum, baselines)
        speed(camera)
    finally:
        stop(node)
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
