# SPDX-License-Identifier: Apache-2.0
"""What smaller pyramids of Depth Pro cost: one pass of the full-size network with random weights at each size, turn by turn.

python benchmarks/depth_pro.py --rounds 2 --device cpu

Accuracy is not looked at: the published network was trained at 1536 only.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from depth_anything_ros.inference.estimator import choose_device
from depth_anything_ros.models import build, lookup

SIZES = (512, 1024, 1536)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    device = choose_device(options.device)
    row, encoder = lookup("depth_pro")
    network = build(row, encoder, row.taps["vitl16"]).eval().to(device)
    if device.type == "cuda":
        network = network.lowered(torch.float16)
    seconds: dict[int, list[float]] = {size: [] for size in SIZES}
    with torch.inference_mode():
        for turn in range(options.rounds + (device.type == "cuda")):  # the first on CUDA chooses algorithms
            for size in SIZES:
                images = torch.rand(1, 3, size, size, device=device) * 2 - 1
                sized = network.at_size(size, size)
                begin = time.perf_counter()
                float(sized(images).mean())  # waits for the device
                if turn or device.type != "cuda":
                    seconds[size].append(time.perf_counter() - begin)
    slowest = statistics.median(seconds[SIZES[-1]])
    print(f"Depth Pro on {device}, one image\n\n| input_size | s | times as fast as {SIZES[-1]} |\n|---|---|---|")
    for size, values in seconds.items():
        print(f"| {size} | {statistics.median(values):.2f} | {slowest / statistics.median(values):.1f} |")


if __name__ == "__main__":
    main()
