#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The main job in one command: a camera process, a depth process, and this one, which listens, checks and draws.

    python tools/demo.py                        procedural scenes, with true depth to compare with
    python tools/demo.py --input drive.mp4      a photo, a folder of photos or a video of your own

Leaves in out/demo: contact_sheet.png, cloud.ply, summary.json, summary.txt and the processes' logs. Exits with 1 and says
why if anything is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("ROS_DOMAIN_ID", str(60 + os.getpid() % 40))
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
os.environ.setdefault("ROS_LOCALHOST_ONLY", "1")  # Humble's word for the same

import demo_pictures
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from depth_anything_ros.demo.sources import VIDEO_SUFFIXES
from depth_anything_ros.messages.cloud_reader import read_cloud
from depth_anything_ros.node.process import use_large_shared_memory

MODEL, MAX_DEPTH = "demo", 20.0
SAMPLES = 4  # rows of the contact sheet
MIN_COVERAGE = 0.9  # share of pixels that must have depth where the truth has
FILES = ("contact_sheet.png", "cloud.ply", "summary.json", "summary.txt", "depth_node.log", "camera_player.log")
BIN = Path(sys.executable).parent


class DemoError(RuntimeError):
    """Something that the demo exists to show did not happen."""


class Recorder(Node):
    """Collects the camera's and the depth node's messages by stamp, and scores depth against truth as they come."""

    TOPICS = {
        "image": ("/camera/image_raw", Image),
        "truth": ("/camera/true_depth", Image),
        "depth": ("/depth/image", Image),
        "color": ("/depth/color", Image),
        "cloud": ("/depth/points", PointCloud2),
        "info": ("/depth/camera_info", CameraInfo),
    }

    def __init__(self, has_truth: bool):
        super().__init__("demo_recorder")
        self.expected = [name for name in self.TOPICS if has_truth or name != "truth"]
        self.network = ""
        self.open: dict[int, dict[str, object]] = {}  # stamp -> what has come with it so far
        self.complete: list[dict[str, object]] = []
        self.counts = dict.fromkeys(self.expected, 0)
        self.latencies: list[float] = []
        self.scores: list[tuple[float, float, float]] = []
        for name in self.expected:
            topic, kind = self.TOPICS[name]
            self.create_subscription(kind, topic, lambda message, name=name: self._receive(name, message), 10)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._read_diagnostics, 10)

    def _receive(self, name: str, message) -> None:
        now = time.time()
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        messages = self.open.setdefault(stamp, {})
        messages[name] = message
        self.counts[name] += 1
        if name == "depth":
            self.latencies.append(now - stamp / 1e9)
        if len(messages) == len(self.expected):
            self._finish(self.open.pop(stamp))
        for old in [s for s in self.open if s < stamp - 5 * 10**9]:
            del self.open[old]

    def _finish(self, messages: dict[str, object]) -> None:
        check_agreement(messages)
        if "truth" in messages:
            self.scores.append(score(pixels(messages["depth"]), pixels(messages["truth"])))
        self.complete.append(messages)
        if len(self.complete) > 16 * SAMPLES:  # enough to choose from; thin out what is kept, not what is counted
            del self.complete[1:-1:2]

    def _read_diagnostics(self, array: DiagnosticArray) -> None:
        for status in array.status:
            if status.name == "depth_node: depth":
                self.network = next((pair.value for pair in status.values if pair.key == "network"), "")


def pixels(message: Image) -> np.ndarray:
    """The pixels of an Image as an array; a view."""
    kind, channels = {"32FC1": (np.float32, 1), "bgr8": (np.uint8, 3)}[message.encoding]
    array = np.frombuffer(message.data, kind).reshape(message.height, message.width, channels)
    return array[..., 0] if channels == 1 else array


def check_agreement(messages: dict[str, object]) -> None:
    """Size and frame of everything that carries one stamp must be those of the image."""
    image = messages["image"]
    for name, message in messages.items():
        if (message.height, message.width) != (image.height, image.width) or message.header.frame_id != image.header.frame_id:
            raise DemoError(f"{name} is {message.width}x{message.height} in '{message.header.frame_id}', unlike its image")


def score(depth: np.ndarray, truth: np.ndarray) -> tuple[float, float, float]:
    """AbsRel, delta1 and coverage over the pixels nearer than the model's maximum, without any alignment."""
    known = truth < MAX_DEPTH
    valid = known & np.isfinite(depth)
    ratio = depth[valid] / truth[valid]
    absrel, delta1 = np.abs(ratio - 1).mean(), (np.maximum(ratio, 1 / ratio) < 1.25).mean()
    return float(absrel), float(delta1), float(valid.sum() / known.sum())


def start(name: str, output: Path, parameters: dict[str, object], remaps: tuple[str, ...] = ()) -> subprocess.Popen:
    """One of our console commands as a process of its own, its log in the output folder."""
    command = [str(BIN / name), "--ros-args"]
    for key, value in parameters.items():
        command += ["-p", f"{key}:={str(value).lower() if isinstance(value, bool) else value}"]
    for remap in remaps:
        command += ["-r", remap]
    with (output / f"{name}.log").open("w") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)


def spin_until(recorder: Recorder, done, seconds: float, what: str, processes: dict[str, subprocess.Popen]) -> None:
    """Handle messages until `done()`; DemoError after `seconds` or if a process dies."""
    end, told = time.monotonic() + seconds, time.monotonic()
    while not done():
        rclpy.spin_once(recorder, timeout_sec=0.1)
        for name, process in processes.items():
            if process.poll() not in (None, 0):
                raise DemoError(f"{name} ended with {process.returncode}: see its log")
        if time.monotonic() > end:
            raise DemoError(f"{what}: nothing after {seconds:.0f} s (received: {recorder.counts})")
        if time.monotonic() - told > 5:
            told = time.monotonic()
            print(f"demo: {what} ... {recorder.counts['depth']} depth frames", flush=True)


def run(source: str, output: Path, frames: int) -> dict:
    """Start both processes, record until `frames` bundles are complete or the source ends, and sum up."""
    processes: dict[str, subprocess.Popen] = {}
    recorder = Recorder(has_truth=not source)
    still = Path(source).suffix.lower() not in VIDEO_SUFFIXES
    try:
        processes["depth_node"] = start("depth_node", output, {"model": MODEL}, ("image:=/camera/image_raw",))
        spin_until(recorder, lambda: recorder.network == "ready", 60, "loading the network", processes)
        camera = {"source": source or "scenes", "loop": still, "wait_for_reader": True, "rate": 5.0 if source else 10.0}
        processes["camera_player"] = player = start("camera_player", output, camera)
        enough = (lambda: recorder.counts["depth"] >= frames) if still else (lambda: player.poll() is not None)
        spin_until(recorder, lambda: recorder.counts["depth"] > 0, 180, "starting the camera", processes)
        began = time.monotonic()
        spin_until(recorder, enough, 240, "recording", processes)
        elapsed, recorded = time.monotonic() - began, recorder.counts["depth"]
        player.send_signal(signal.SIGINT)  # the camera stops first, so that every image that it sent can be accounted for
        settle = time.monotonic() + 1.0
        spin_until(recorder, lambda: time.monotonic() > settle, 5, "finishing", processes)
    finally:
        for process in processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        recorder.destroy_node()
    return summarise(recorder, (recorded - 1) / elapsed, output)


def summarise(recorder: Recorder, fps: float, output: Path) -> dict:
    """Write pictures, cloud and figures; DemoError if there is nothing to show."""
    if not recorder.complete:
        raise DemoError(f"no frame had all of its outputs (received: {recorder.counts})")
    last = recorder.complete[-1]
    chosen = [recorder.complete[i] for i in np.linspace(0, len(recorder.complete) - 1, SAMPLES).round().astype(int)]
    demo_pictures.contact_sheet(output / "contact_sheet.png", chosen, pixels, read_cloud)
    cloud = read_cloud(last["cloud"])
    points = demo_pictures.write_ply(output / "cloud.ply", cloud)
    latency = np.asarray(recorder.latencies) * 1000
    summary = {
        "frames": recorder.counts["depth"],
        "images": recorder.counts["image"],
        "drops": recorder.counts["image"] - recorder.counts["depth"],
        "fps": round(fps, 2),
        "latency_ms": {f"p{p}": round(float(np.percentile(latency, p)), 1) for p in (50, 99)},
        "cloud": {"width": last["cloud"].width, "height": last["cloud"].height, "finite_points": points},
    }
    if recorder.scores:
        absrel, delta1, coverage = (round(float(value), 4) for value in np.mean(recorder.scores, axis=0))
        summary |= {"absrel": absrel, "delta1": delta1, "coverage": coverage}
        if not coverage >= MIN_COVERAGE:
            raise DemoError(f"only {coverage:.0%} of the pixels have depth")
    if points == 0:
        raise DemoError("the cloud has no finite point")
    return summary


def main() -> int:
    """Run the demo; 1 if anything is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", default="", help="photo, folder of photos, or video (default: procedural scenes)")
    parser.add_argument("--output", type=Path, default=Path("out/demo"))
    parser.add_argument("--frames", type=int, default=48, help="depth frames to record (a video: all of it)")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (args.output / name).unlink(missing_ok=True)
    use_large_shared_memory()
    rclpy.init()
    try:
        summary = run(args.input, args.output, args.frames)
    except DemoError as error:
        print(f"demo: FAILED: {error} (logs in {args.output})", file=sys.stderr)
        return 1
    finally:
        rclpy.try_shutdown()
    text = describe(summary)
    (args.output / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    (args.output / "summary.txt").write_text(text + "\n")
    print(text)
    print(f"demo: look at {args.output}/contact_sheet.png and {args.output}/cloud.ply")
    return 0


def describe(summary: dict) -> str:
    """The summary in a few lines."""
    lines = [
        f"frames   {summary['frames']} depth frames of {summary['images']} images, {summary['drops']} dropped",
        "speed    {} frames/s, latency p50 {p50} ms, p99 {p99} ms".format(summary["fps"], **summary["latency_ms"]),
        "cloud    {width} x {height}, {finite_points} finite points".format(**summary["cloud"]),
    ]
    if "absrel" in summary:
        lines.append("depth    AbsRel {absrel}, delta1 {delta1} against the exact scene, no alignment".format(**summary))
    lines.append("The embedded model is for demonstrations and tests: never for a robot.")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
