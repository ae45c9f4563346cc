#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What everything behind the network costs, next to the network: scale, stabiliser, edges, range, heights, clouds, scan.

    python benchmarks/refining.py [--frames 12]

A walk through a procedural hall at 640 x 480; V2 ViT-S at 518 with random weights for the network's time (the same work as with
trained ones), the true inverse depth on its grid for what it says; 2000 points of a range sensor for the scale.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from stabilizer import walk

from depth_anything_ros.demo.families import HELD_OUT_SEED
from depth_anything_ros.depth_benchmark import random_weights
from depth_anything_ros.geometry import (
    AdaptiveRange,
    CloudSettings,
    ScaleSettings,
    ScanSettings,
    StabilizerSettings,
    Transform,
)
from depth_anything_ros.inference import DepthEstimator, Prediction
from depth_anything_ros.outputs import Outputs, OutputSettings
from depth_anything_ros.pipeline import DepthSettings, Frame, Refiner, RefineSettings, Side

GRID = (518, 686)
MOUNT = Transform.from_rpy(0, 0, 0.5, 0, 0.1, 0) @ Transform.from_rpy(0, 0, 0, -np.pi / 2, 0, -np.pi / 2)
SIDE = {"mount": MOUNT, "sensor": Transform.identity(), "scan": MOUNT}
PLAIN = RefineSettings(DepthSettings(0.05, 20.0))
STEPS = {  # what is added, each on top of those before
    "scale, sparse": RefineSettings(DepthSettings(0.05, 20.0), ScaleSettings("sparse")),
    "stabiliser": RefineSettings(DepthSettings(0.05, 20.0), ScaleSettings("sparse"), StabilizerSettings(True)),
    "edges": RefineSettings(DepthSettings(0.05, 20.0, 0.02), ScaleSettings("sparse"), StabilizerSettings(True)),
}


def main() -> None:
    """Print a row for each step, and what it all is of the network's time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=12)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = random_weights("v2", "vits", Path(folder))
        estimator = DepthEstimator.create("v2", "vits", str(checkpoint), device="cpu", backend="torch", precision="fp32")
    shots = list(walk(HELD_OUT_SEED + 11, "hall", args.frames, 0.5))
    random, spent = np.random.default_rng(0), defaultdict(list)
    refiners = {"none": (Refiner(), PLAIN)} | {name: (Refiner(), settings) for name, settings in STEPS.items()}
    for number, (rgb, depth, camera) in enumerate(shots):
        start = time.perf_counter()
        estimator.predict(rgb)
        spent["network"].append(time.perf_counter() - start)
        inverse = F.interpolate(torch.from_numpy(1 / depth).float()[None, None], size=GRID, mode="bilinear")[0, 0]
        u, v = random.integers(0, 640, 2000), random.integers(0, 480, 2000)
        z = depth[v * depth.shape[0] // 480, u * depth.shape[1] // 640]
        points = np.stack([(u - camera.cx) / camera.fx * z, (v - camera.cy) / camera.fy * z, z], 1)
        side, frame = Side(points=points, **SIDE), Frame(rgb, camera, None, int(1e9 + number * 1e8))
        for name, (refiner, settings) in refiners.items():
            kind = "metric" if name == "none" else "relative"
            prediction = Prediction(1 / inverse if name == "none" else inverse, kind, (480, 640), True)
            start = time.perf_counter()
            refined = refiner.refine(frame, prediction, settings, side)
            refined.metres.cpu()
            spent[name].append(time.perf_counter() - start)
        for name, cloud in (("cloud", CloudSettings()), ("cloud, band of heights", CloudSettings(1, 5.0, 0.05, 1.0))):
            outputs = Outputs(frame, prediction, refined, side, OutputSettings(cloud=cloud), AdaptiveRange())
            start = time.perf_counter()
            outputs.cloud  # noqa: B018
            spent[name].append(time.perf_counter() - start)
        start = time.perf_counter()
        Outputs(frame, prediction, refined, side, OutputSettings(scan=ScanSettings()), AdaptiveRange()).scan  # noqa: B018
        spent["scan"].append(time.perf_counter() - start)
    ms = {name: 1000 * float(np.median(values[2:])) for name, values in spent.items()}
    print(f"network (V2 ViT-S at 518, fp32, {torch.get_num_threads()} threads) {ms['network']:.0f} ms")
    print(f"bilinear to the image's size and range alone {ms['none']:.1f} ms")
    before, total = ms["none"], 0.0
    for name in STEPS:
        print(f"  + {name:24} {ms[name] - before:6.1f} ms")
        total, before = total + ms[name] - before, ms[name]
    band = ms["cloud, band of heights"] - ms["cloud"]
    print(f"  + {'band of heights':24} {band:6.1f} ms  (of a cloud, which takes {ms['cloud']:.1f})")
    print(f"  + {'scan':24} {ms['scan']:6.1f} ms")
    total += band + ms["scan"]
    print(f"together {total:.1f} ms, {total / ms['network']:.1%} of the network")


if __name__ == "__main__":
    main()
