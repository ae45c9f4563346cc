#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How well the embedded model measures scenes that it never saw: 40 held-out seeds at 640 x 480, without alignment.

python benchmarks/embedded_model.py
"""

from __future__ import annotations

import numpy as np

from depth_anything_ros.demo.raycast import render
from depth_anything_ros.demo.scenes import HELD_OUT_SEED, random_scene
from depth_anything_ros.inference import DepthEstimator

MAX_DEPTH = 20.0


def main() -> None:
    """Print AbsRel and delta1 of the model and of a constant depth, means over scenes."""
    estimator = DepthEstimator.create("demo", device="cpu")
    rows = []
    for seed in range(HELD_OUT_SEED + 100, HELD_OUT_SEED + 140):
        rgb, depth = render(*random_scene(seed), 640, 480)
        truth = depth[0].numpy()
        predicted = estimator.predict((rgb[0].numpy() * 255).astype(np.uint8)).at_image_size()
        known = truth < MAX_DEPTH
        ratio = predicted[known] / truth[known]
        close = np.maximum(ratio, 1 / ratio) < 1.25
        rows.append((np.abs(ratio - 1).mean(), close.mean(), np.abs(2 / truth[known] - 1).mean()))
    absrel, delta1, constant = np.mean(rows, axis=0)
    print(f"AbsRel {absrel:.3f}, delta1 {delta1:.3f}; a constant depth of 2 m: AbsRel {constant:.3f}")


if __name__ == "__main__":
    main()
