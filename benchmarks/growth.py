# SPDX-License-Identifier: Apache-2.0
"""How the cost of a frame grows with input size, encoder, number of cameras and image size, as a table and a plot.

    python benchmarks/growth.py [docs/growth.png]        (the plot needs matplotlib)

Medians in this process, random weights, the backend that `auto` takes.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

from depth_anything_ros.benchmark.operations import operations, times
from depth_anything_ros.benchmark.stages import Way
from depth_anything_ros.depth_benchmark import random_weights
from depth_anything_ros.inference import DepthEstimator

SIZES = (196, 252, 322, 392, 448, 518, 644)
ENCODERS = ("vits", "vitb", "vitl")
CAMERAS = (1, 2, 3, 4)
IMAGES = ((320, 240), (640, 480), (960, 720), (1280, 720), (1920, 1080))


def estimator_of(encoder: str, input_size: int, folder: Path) -> DepthEstimator:
    """Random weights, prepared for 640 x 480."""
    path = str(random_weights("v2_metric_indoor", encoder, folder))
    estimator = DepthEstimator.create("v2_metric_indoor", encoder, path, input_size, allow_noncommercial=True)
    estimator.prepare(640, 480)
    return estimator


def milliseconds(work, device, count: int = 5) -> float:
    """The median of a few runs."""
    return 1000 * statistics.median(times(work, count, device, warm_up=1))


def main() -> None:
    """Measure everything, print, and plot if a file is named."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows: dict[str, list[tuple[str, float]]] = {}
        vits = estimator_of("vits", 518, folder)
        by_size = []
        for size in SIZES:
            way = Way(vits.with_input_size(size), 640, 480)
            by_size.append((str(size), milliseconds(way.stages()["network"], vits.device)))
        rows["network, vits, by input size"] = by_size
        by_encoder = []
        for encoder in ENCODERS:
            way = Way(estimator_of(encoder, 518, folder), 640, 480)
            found = milliseconds(way.stages()["network"], vits.device, 3)
            by_encoder.append((f"{encoder} ({operations(encoder, *way.size) / 1e9:.0f} GFLOP)", found))
        rows["network at 518, by encoder"] = by_encoder
        small = vits.with_input_size(252)
        image = Way(small, 640, 480).rgb
        rows["all cameras, vits at 252, by their number"] = [
            (str(count), milliseconds(lambda count=count: small.predict_batch([image] * count), vits.device))
            for count in CAMERAS
        ]
        by_image = []
        for width, height in IMAGES:
            stages = Way(vits, width, height).stages()
            names = ("decode", "preprocess", "refine", "depth", "colour", "cloud", "fill")
            found = sum(milliseconds(stages[stage], vits.device, 9) for stage in names if stage in stages)
            by_image.append((f"{width} x {height}", found))
        rows["all but the network and DDS, by image size"] = by_image
    for title, found in rows.items():
        print(f"| {title} | ms |\n|---|---|")
        print("\n".join(f"| {label} | {value:.1f} |" for label, value in found), end="\n\n")
    if sys.argv[1:]:
        plot(rows, f"{vits.executor}", Path(sys.argv[1]))


def plot(rows: dict[str, list[tuple[str, float]]], what: str, path: Path) -> None:
    """Four panels of bars."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(11, 7), constrained_layout=True)
    figure.suptitle(f"Milliseconds of a frame, {what}")
    for axis, (title, found) in zip(axes.flat, rows.items()):
        labels, values = zip(*found)
        bars = axis.bar(labels, values, color="#3b6ea5")
        axis.bar_label(bars, fmt="%.0f")
        axis.set_title(title, fontsize=10)
        axis.set_ylim(0, 1.15 * max(values))
        axis.tick_params(labelsize=8)
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
