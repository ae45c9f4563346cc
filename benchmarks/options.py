#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What options that cost network passes, or change the image, give: confidence, mirrored means, ensembles, exposure.

    python benchmarks/options.py [--scenes 8]

The embedded model on held-out scenes with exact depth, 640 x 480. What does not help here is not in the package.
"""

from __future__ import annotations

import argparse

import cv2
import numpy as np

from depth_anything_ros.demo.families import HELD_OUT_SEED, PLACES
from depth_anything_ros.demo.sources import photographed_scene
from depth_anything_ros.inference import DepthEstimator, normalize_exposure

FIRST_SEED = HELD_OUT_SEED + 6000


def equalised(rgb: np.ndarray) -> np.ndarray:
    """Contrast-limited histogram equalisation of the lightness (CLAHE)."""
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(2.0, (8, 8)).apply(np.ascontiguousarray(lab[..., 0]))
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)


def spoiled(rgb: np.ndarray, exposure: float, seed: int) -> np.ndarray:
    """As a camera with a wrong exposure gives it, with its noise."""
    noise = np.random.default_rng(seed).normal(0, 3, rgb.shape)
    return np.clip(rgb.astype(np.float32) * exposure + noise, 0, 255).astype(np.uint8)


def main() -> None:
    """Print a table for each option."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=8, help="of each place")
    args = parser.parse_args()
    shots = [
        photographed_scene(seed, family, 640, 480) for family in PLACES for seed in range(FIRST_SEED, FIRST_SEED + args.scenes)
    ]
    estimator = DepthEstimator.create("demo", device="cpu")
    larger, smaller = estimator.with_input_size(240), estimator.with_input_size(160)

    def off(depth: np.ndarray, truth: np.ndarray) -> np.ndarray:
        return np.abs(depth / truth - 1)[truth < 20]

    def row(title: str, predict, exposure: float = 1.0) -> None:
        errors = []
        for seed, shot in enumerate(shots):
            rgb = spoiled(shot.rgb, exposure, seed) if exposure != 1 else shot.rgb
            errors.append(off(predict(rgb), shot.depth).mean())
        print(f"  {title:44} {np.mean(errors):.4f}  (median of frames {np.median(errors):.4f})", flush=True)

    def plain(rgb: np.ndarray, by: DepthEstimator = estimator) -> np.ndarray:
        return by.predict(rgb).at_image_size()

    print(f"AbsRel over {len(shots)} scenes")
    row("as it is", plain)
    row("mean with the mirrored image (2 passes)", lambda rgb: (plain(rgb) + plain(rgb[:, ::-1].copy())[:, ::-1]) / 2)
    row("input size 160", lambda rgb: plain(rgb, smaller))
    row("input size 240", lambda rgb: plain(rgb, larger))
    sizes = (smaller, estimator, larger)
    row("median of sizes 160, 192, 240 (3 passes)", lambda rgb: np.median([plain(rgb, by) for by in sizes], 0))
    for exposure in (0.1, 0.25, 0.5, 2.0, 4.0):
        print(f"exposure x {exposure}")
        row("as it is", plain, exposure)
        row("normalize_exposure", lambda rgb: plain(normalize_exposure(rgb)), exposure)
        row("CLAHE", lambda rgb: plain(equalised(rgb)), exposure)

    print("confidence: AbsRel of the pixels above a threshold, and their share")
    pairs = []
    for shot in shots:
        prediction = estimator.predict_batch([shot.rgb], confidence=True)[0]
        agree = prediction.resized(prediction.confidence).numpy()
        near = shot.depth < 20
        pairs.append((agree[near], np.abs(prediction.at_image_size() / shot.depth - 1)[near]))
    agree, error = (np.concatenate(values) for values in zip(*pairs))
    for threshold in (0.0, 0.8, 0.9, 0.95):
        kept = agree >= threshold
        print(
            f"  at least {threshold:4}: {error[kept].mean():.4f} of {kept.mean():.0%}; of the others {error[~kept].mean():.4f}"
        )


if __name__ == "__main__":
    main()
