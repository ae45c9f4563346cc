# SPDX-License-Identifier: Apache-2.0
"""`depth_benchmark`: what each stage of a frame's way costs here, beside other implementations and the machine's own limit.

Without ROS, transformers or OpenVINO, what needs them is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import torch

from .benchmark.operations import ceiling, operations, spread, times
from .benchmark.peers import torch_eager, transformers_pipeline
from .benchmark.scene import picture
from .benchmark.stages import Way
from .command_line import add_network_options, chosen_estimator, image_size
from .inference import DepthEstimator, ImageError, InferenceError
from .inference.proof import Difference, difference
from .models import CUSTOM, METRIC, ModelError, build, lookup, rows_of
from .models.zoo import DEPTH_ANYTHING, DEPTH_PRO

_CONTRAST = 12.0  # of random weights' output; by itself it is flat


def main(args: list[str] | None = None) -> int:
    """Print the tables; write the figures as JSON if a file is named."""
    parser = argparse.ArgumentParser(
        prog="depth_benchmark",
        description="Time of each stage, of other implementations, and over DDS. Weights are random unless --checkpoint names "
        "some: speed does not depend on them.",
    )
    add_network_options(parser, "v2_metric_indoor")
    parser.add_argument(
        "--image", type=image_size, default="640x480", help="size of the camera's images (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=7, help="turns of each, interleaved (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of every contestant (default: torch's)")
    parser.add_argument("--no-peers", action="store_true", help="leave out the other implementations")
    parser.add_argument("--no-dds", action="store_true", help="leave out the way over DDS")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    options = parser.parse_args(args)
    if options.threads:
        torch.set_num_threads(options.threads)
        os.environ["OMP_NUM_THREADS"] = str(options.threads)  # of the node
    try:
        with tempfile.TemporaryDirectory() as folder:
            figures = _measure(options, *options.image, Path(folder))
    except (ModelError, ImageError, InferenceError, OSError, ValueError) as error:
        print(f"depth_benchmark: {error}", file=sys.stderr)
        return 2
    _print(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def _measure(options: argparse.Namespace, width: int, height: int, folder: Path) -> dict:
    options.encoder = rows_of(options.model, options.encoder, options.checkpoint)[2]
    if not options.checkpoint and options.model not in ("demo", CUSTOM):
        options.checkpoint = str(random_weights(options.model, options.encoder, folder))
        options.allow_noncommercial = True
    estimator = chosen_estimator(options)
    estimator.prepare(width, height)
    way, device = Way(estimator, width, height), estimator.device
    backend, precision = estimator.executor.backend.name, estimator.executor.backend.precision
    figures = {
        "machine": _machine(device),
        "network": estimator.name,
        "image": [width, height],
        "network_size": list(way.size),
        "backend": backend,
        "precision": precision,
        "threads": torch.get_num_threads(),
        "refused": estimator.executor.refused,
    }
    peers = {"ours": way.whole}
    published = estimator.network.model.architecture == DEPTH_ANYTHING and not estimator.network.encoder.timm
    if not options.no_peers:
        peers["torch_eager"] = torch_eager(estimator)
        pipeline = transformers_pipeline(estimator, width, height) if published else None
        peers |= {"transformers": pipeline} if pipeline else {}
    seconds: dict[str, list[float]] = defaultdict(list)
    best: list[float] = []
    stages = way.stages()
    count = operations(estimator.encoder, *way.size) if published else 0.0
    for _ in range(options.rounds):
        for name, run in peers.items():
            seconds[name] += times(lambda run=run: run(way.rgb), 1, device, warm_up=1)
        for name, run in stages.items():
            seconds[f"stage {name}"] += times(run, 2 if name == "network" else 5, device, warm_up=1)
        if count:
            best.append(ceiling(device, precision))
    found = {name: spread(values) for name, values in seconds.items()}
    figures["stages"] = {name.removeprefix("stage "): value for name, value in found.items() if name.startswith("stage ")}
    figures["end_to_end"] = {name: value for name, value in found.items() if name in peers}
    ours = figures["end_to_end"]["ours"]["p50"]
    ratios = {f"end_to_end_vs_{name}": figures["end_to_end"][name]["p50"] / ours for name in peers if name != "ours"}
    if count:
        figures["operations"] = count
        figures["ceiling_per_second"] = statistics.median(best)
        figures["network_per_second"] = count / figures["stages"]["network"]["p50"] * 1000
        ratios["network_vs_ceiling"] = figures["network_per_second"] / figures["ceiling_per_second"]
    off = _difference_of_embedded(options)
    ratios |= {"depth_difference": off.mean, "depth_difference_p99": off.p99}
    figures["ratios"] = ratios
    if not options.no_dds:
        _over_dds(figures, options, width, height, options.rounds * 4)
    return figures


def _over_dds(figures: dict, options: argparse.Namespace, width: int, height: int, frames: int) -> None:
    """The same network in a node, between a camera and a consumer in processes of their own."""
    try:
        from .benchmark.over_dds import DdsError, measure
    except ImportError:
        figures["over_dds"] = "ROS 2 is not installed"
        return
    names = ("model", "encoder", "checkpoint", "input_size", "device", "backend", "precision", "allow_noncommercial")
    try:
        found = measure({name: getattr(options, name) for name in names}, width, height, frames)
    except DdsError as error:
        figures["over_dds"] = str(error)
        return
    figures["over_dds"] = found
    stages = found["stages"]
    figures["overhead_ms"] = stages["all but the network"]["p50"]
    figures["ratios"]["overhead_share"] = figures["overhead_ms"] / found["node"]["p50"]
    published = [row for name, row in stages.items() if name.startswith("publish ")]
    figures["stages"]["publish"] = {key: sum(row[key] for row in published) for key in ("p50", "p99")}
    figures["stages"]["receive"] = found["receive"]


def _difference_of_embedded(options: argparse.Namespace) -> Difference:
    """How far the embedded model's real weights are from torch in float32 with this backend and precision, on a picture."""
    rgb = picture(640, 480)
    ours, reference = (
        DepthEstimator.create("demo", device=options.device, backend=backend, precision=precision).predict(rgb).tensor
        for backend, precision in ((options.backend, options.precision), ("torch", "fp32"))
    )
    return difference(ours, reference, METRIC)


def random_weights(model: str, encoder: str, folder: Path) -> Path:
    """A checkpoint of random weights with the published layout, whose output has about as many edges as a room's depth."""
    row, sizes = lookup(model, encoder)
    torch.manual_seed(0)
    network = build(row, sizes, row.taps[encoder])
    if row.architecture != DEPTH_PRO:
        network.depth_head.scratch.output_conv2[2].weight.data *= _CONTRAST
    path = folder / f"random_{encoder}.pth"
    torch.save(network.state_dict(), path)
    return path


def _machine(device: torch.device) -> dict[str, str]:
    names = re.findall(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text()) if Path("/proc/cpuinfo").is_file() else []
    found = {
        "cpu": names[0] if names else platform.processor(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def _print(figures: dict) -> None:
    """The figures as tables of Markdown."""
    machine, size = ", ".join(figures["machine"].values()), figures["network_size"]
    print(f"{figures['network']} at {size[0]} x {size[1]} on a {figures['image'][0]} x {figures['image'][1]} image,")
    print(f"{figures['backend']} {figures['precision']}, {figures['threads']} CPU threads; {machine}\n")
    _table("stage, alone", figures["stages"])
    _table("image to depth, in this process", figures["end_to_end"])
    found = figures.get("over_dds")
    if isinstance(found, str):
        print(f"over DDS: {found}\n")
    elif found:
        _table("in the node", found["stages"] | {"from arrival to the last output": found["node"]})
        _table("from the camera's stamp to the consumer", found["latency"])
        print(f"{found['memory']['now_mib']:.0f} MiB in the node, {found['memory']['most_mib']:.0f} at most\n")
    if "operations" in figures:
        print(
            f"{figures['operations'] / 1e9:.1f} GFLOP: {figures['network_per_second'] / 1e9:.0f} GFLOP/s, of "
            f"{figures['ceiling_per_second'] / 1e9:.0f} that a matrix product reaches here\n"
        )
    for name, value in figures["ratios"].items():
        print(f"{name}: {value:.4f}")


def _table(title: str, rows: dict[str, dict[str, float]]) -> None:
    print(f"| {title} | p50, ms | p99, ms |\n|---|---|---|")
    for name, row in rows.items():
        print(f"| {name} | {row['p50']:.2f} | {row['p99']:.2f} |")
    print()


if __name__ == "__main__":
    sys.exit(main())
