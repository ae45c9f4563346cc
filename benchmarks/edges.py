#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Points in the air: how many there are without `edges.tolerance` and with it, and what it costs.

    python benchmarks/edges.py [--scenes 3]

Held-out scenes of each place with exact depth, 640 x 480. First apart from any network's own error: the true inverse depth at
the network's grid, blurred by a Gaussian as networks blur edges, then enlarged. A point is in the air if it is farther from
every true surface than 2 % of its distance. Then the same of the embedded model, whose own error puts points off the
surface everywhere: there, 10 %.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
import torch.nn.functional as F

from depth_anything_ros.demo.families import HELD_OUT_SEED, PLACES, random_scene
from depth_anything_ros.demo.photograph import photograph
from depth_anything_ros.demo.raycast import render
from depth_anything_ros.geometry import enlarge
from depth_anything_ros.inference import DepthEstimator

HEIGHT, WIDTH, FAR = 480, 640, 20.0
FIRST_SEED = HELD_OUT_SEED + 3000
TOLERANCE = 0.02  # the node's default
GRIDS = {"embedded model's": (192, 256), "ViT at 518": (518, 686)}


def at_grid(depth: torch.Tensor, grid: tuple[int, int], sigma: float) -> torch.Tensor:
    """Depth (H, W) sampled at a grid, its inverse blurred by `sigma` grid pixels."""
    rows, columns = (((torch.arange(n) + 0.5) * size / n).long() for n, size in zip(grid, depth.shape))
    inverse = 1 / depth[rows][:, columns]
    reach = torch.arange(-int(4 * sigma) - 1, int(4 * sigma) + 2).float()
    kernel = torch.exp(-(reach**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    padded = F.pad(inverse[None, None], (len(reach) // 2,) * 4, mode="replicate")
    return 1 / F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))[0, 0]


def points(depth: torch.Tensor, focal: float) -> torch.Tensor:
    """(H, W, 3) metres in the optical frame; focal length in image widths."""
    v, u = torch.meshgrid(torch.arange(HEIGHT) - (HEIGHT - 1) / 2, torch.arange(WIDTH) - (WIDTH - 1) / 2, indexing="ij")
    return torch.stack([u / (focal * WIDTH) * depth, v / (focal * WIDTH) * depth, depth], -1)


def in_the_air(depth: torch.Tensor, truth: torch.Tensor, focal: float, share: float, reach: int = 8) -> torch.Tensor:
    """(H, W) bool: farther than `share` of their distance from every true point within `reach` pixels."""
    found, true = points(depth, focal), points(truth, focal)
    nearest = torch.full(depth.shape, torch.inf)
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            here = (slice(max(0, -dy), HEIGHT - max(0, dy)), slice(max(0, -dx), WIDTH - max(0, dx)))
            there = (slice(max(0, dy), HEIGHT + min(0, dy)), slice(max(0, dx), WIDTH + min(0, dx)))
            nearest[here] = torch.minimum(nearest[here], (found[here] - true[there]).square().sum(-1))
    return nearest.sqrt() > share * found.norm(dim=-1)


def main() -> None:
    """Print a row for each grid and blur, and one for the embedded model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=3, help="of each place")
    args = parser.parse_args()
    shots = []
    for family in PLACES:
        for seed in range(FIRST_SEED, FIRST_SEED + args.scenes):
            scene, view = random_scene(seed, family)
            seen = render(scene, view, WIDTH, HEIGHT)
            image = photograph(seen.rgb.permute(0, 3, 1, 2), torch.Generator().manual_seed(seed))[0]
            rgb = np.ascontiguousarray((image * 255).byte().permute(1, 2, 0).numpy())
            shots.append((rgb, seen.depth[0].clamp_max(FAR), float(view.focal)))

    def row(title: str, grids: list[torch.Tensor], align_corners: bool, share: float, guided: bool = False) -> None:
        rows = []
        for (rgb, truth, focal), grid in zip(shots, grids):
            plain = F.interpolate(grid[None, None], (HEIGHT, WIDTH), mode="bilinear", align_corners=align_corners)[0, 0]
            start = time.perf_counter()
            masked = enlarge(grid, (HEIGHT, WIDTH), align_corners, TOLERANCE, "guided" if guided else "bilinear", rgb)
            cost = time.perf_counter() - start
            near, kept = plain < FAR - 1, torch.isfinite(masked)
            before = in_the_air(plain, truth, focal, share) & near
            after = in_the_air(torch.where(kept, masked, FAR), truth, focal, share) & near & kept
            good = near & ~before
            right = (((masked - truth).abs() < share * truth) & near).sum() / near.sum()
            rows.append(
                (before.sum() / near.sum(), after.sum() / (near & kept).sum(), (good & kept).sum() / good.sum(), right, cost)
            )
        before, after, kept, right, cost = np.mean(rows, axis=0)
        print(f"{title:40} {100 * before:6.2f} % -> {100 * after:6.2f} %  {before / after:6.1f} x", end="")
        print(f"  good points kept {100 * kept:5.1f} %  right {100 * right:5.1f} %  {1000 * cost:5.1f} ms", flush=True)

    print(f"{len(shots)} scenes, tolerance {TOLERANCE}: share of points in the air, bilinear -> masked")
    for name, grid in GRIDS.items():
        for sigma in (0.5, 1.0, 2.0):
            grids = [at_grid(truth, grid, sigma) for _, truth, _ in shots]
            row(f"{name} grid, blur {sigma}", grids, False, 0.02)
            row(f"{name} grid, blur {sigma}, guided", grids, False, 0.02, guided=True)
    estimator = DepthEstimator.create("demo", device="cpu")
    predictions = [estimator.predict(rgb) for rgb, _, _ in shots]
    for share in (0.02, 0.1):
        grids = [prediction.tensor for prediction in predictions]
        row(f"embedded model, {share:.0%}", grids, predictions[0].align_corners, share)
        row(f"embedded model, {share:.0%}, guided", grids, predictions[0].align_corners, share, guided=True)


if __name__ == "__main__":
    main()
