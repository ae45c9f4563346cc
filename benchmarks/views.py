#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a lens costs, and what `camera.rectify` gives back: depth and points of distorted images, three ways.

    python benchmarks/views.py [--scenes 12]

Held-out scenes of each place are ray cast through the lens itself (plumb_bob, the coefficients of Unitree Go2's front
camera; K from the scene), with exact depth along each pixel's ray. Then: `true`, depth on the rectified view; `rays`, depth
on the image as it is and points along the true rays; `neither`, points as if there were no distortion. First with exact
depth, which leaves the error of the geometry alone, then with the embedded model's.
"""

from __future__ import annotations

import argparse
from unittest.mock import patch

import numpy as np
import torch

from depth_anything_ros.demo import raycast
from depth_anything_ros.demo.families import HELD_OUT_SEED, PLACES, random_scene
from depth_anything_ros.demo.photograph import photograph
from depth_anything_ros.demo.scenes import LABELS, Scene, View
from depth_anything_ros.geometry import Camera, Rectification
from depth_anything_ros.inference import DepthEstimator

WIDTH, HEIGHT = 640, 480
LENS = (-0.3546, 0.1265, 0.0009, -0.0006, -0.0203)
FIRST_SEED = HELD_OUT_SEED + 2000
NEAR, FAR = 0.3, 8.0  # metres: what a costmap takes


def see(scene: Scene, view: View, rays: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image (H, W, 3) uint8, depth along z (H, W) in metres and labels, through rays (2, H, W) of any camera."""
    flat = torch.from_numpy(np.nan_to_num(rays, nan=0.0).astype(np.float32)).reshape(2, 1, -1)

    def directions(view: View, *size: int):
        sin, cos = torch.sin, torch.cos
        x, y, pitch, yaw = flat[0], flat[1], view.pitch[:, None], view.yaw[:, None]
        forward, up = cos(pitch) - y * sin(pitch), -sin(pitch) - y * cos(pitch)
        return view.position[:, None], torch.stack(
            [forward * cos(yaw) + x * sin(yaw), forward * sin(yaw) - x * cos(yaw), up], -1
        )

    with patch.object(raycast, "rays", directions):
        seen = raycast.render(scene, view, WIDTH, HEIGHT)
    image = photograph(seen.rgb.permute(0, 3, 1, 2), torch.Generator().manual_seed(seed))[0]
    rgb = np.ascontiguousarray((image * 255).byte().permute(1, 2, 0).numpy())
    return rgb, seen.depth[0].numpy(), seen.label[0].numpy()


def figures(view: View, depth: np.ndarray, truth: np.ndarray, label: np.ndarray, rays: np.ndarray, true_rays: np.ndarray):
    """AbsRel of depth; error of points in per cent of their distance; height of ground points above the ground, RMS in cm."""
    good = np.isfinite(true_rays).all(0) & np.isfinite(depth) & (truth > NEAR) & (truth < FAR)
    points, exact = (np.stack([*(d * r), d])[:, good] for d, r in ((depth, rays), (truth, true_rays)))
    pitch = float(view.pitch)
    height = float(view.position[0, 2]) - points[2] * np.sin(pitch) - points[1] * np.cos(pitch)
    ground = label[good] == LABELS.index("ground")
    return (
        np.abs(points[2] / exact[2] - 1).mean(),
        100 * (np.linalg.norm(points - exact, axis=0) / np.linalg.norm(exact, axis=0)).mean(),
        100 * np.sqrt((height[ground] ** 2).mean()) if ground.sum() > 1000 else np.nan,
    )


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=12, help="of each place")
    args = parser.parse_args()
    estimator = DepthEstimator.create("demo", device="cpu")
    rows: dict[tuple[str, str], list] = {}
    for family in PLACES:
        for seed in range(FIRST_SEED, FIRST_SEED + args.scenes):
            scene, view = random_scene(seed, family)
            focal = float(view.focal) * WIDTH
            ideal = Camera(WIDTH, HEIGHT, focal, focal, (WIDTH - 1) / 2, (HEIGHT - 1) / 2)
            lens = Camera(WIDTH, HEIGHT, focal, focal, ideal.cx, ideal.cy, "plumb_bob", LENS)
            straight, bent = ideal.rays().numpy(), lens.rays().numpy()
            rgb, truth, label = see(scene, view, bent, seed)
            _, ideal_truth, ideal_label = see(scene, view, straight, seed)
            rectification = Rectification(lens, ideal)
            straight = np.where(rectification.covered(), straight, np.nan)
            for source in ("exact depth", "embedded model"):
                model = source != "exact depth"
                on_image = estimator.predict(rgb).at_image_size() if model else truth
                on_view = estimator.predict(rectification.apply(rgb)).at_image_size() if model else ideal_truth
                for mode, row in (
                    ("true", figures(view, on_view, ideal_truth, ideal_label, straight, straight)),
                    ("rays", figures(view, on_image, truth, label, bent, bent)),
                    ("neither", figures(view, on_image, truth, label, ideal.rays().numpy(), bent)),
                ):
                    rows.setdefault((source, mode), []).append(row)
    print(f"{len(PLACES) * args.scenes} scenes, {WIDTH} x {HEIGHT}, pixels from {NEAR} to {FAR} m, means over scenes")
    for (source, mode), values in rows.items():
        absrel, position, ground = np.nanmean(values, axis=0)
        print(f"{source:15} {mode:8} AbsRel {absrel:.3f}  points {position:5.2f} %  ground {ground:5.2f} cm")


if __name__ == "__main__":
    main()
