#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Procedural scenes per minute: built, ray cast with shadows, and photographed, as they are and with `raycast.fuse`.

python benchmarks/scenes.py
"""

from __future__ import annotations

import shutil
import time

import torch

from depth_anything_ros.demo import raycast
from depth_anything_ros.demo.families import random_batch
from depth_anything_ros.demo.photograph import photograph

SIZES = ((128, 96), (256, 192))
BATCH, ROUNDS = 16, 6


def scenes_per_minute(width: int, height: int, device: torch.device) -> float:
    """After one round that is not counted."""
    for number in range(ROUNDS + 1):
        if number == 1:
            began = time.monotonic()
        scenes, views = random_batch(list(range(number * BATCH, (number + 1) * BATCH)))
        seen = raycast.render(scenes.to(device), views.to(device), width, height)
        photograph(seen.rgb.permute(0, 3, 1, 2)).sum().item()
    return 60 * ROUNDS * BATCH / (time.monotonic() - began)


def main() -> None:
    """Print a table."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    plain = [scenes_per_minute(*size, device) for size in SIZES]
    fused = [0.0] * len(SIZES)
    if device.type == "cuda" or shutil.which("c++"):
        raycast.fuse()
        fused = [scenes_per_minute(*size, device) for size in SIZES]
    print(f"| size | scenes / minute on {device} | fused |\n|---|---|---|")
    for (width, height), slow, fast in zip(SIZES, plain, fused):
        print(f"| {width} x {height} | {slow:.0f} | {fast:.0f} |")


if __name__ == "__main__":
    main()
