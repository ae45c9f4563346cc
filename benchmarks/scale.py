#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How near metres are to the truth with each source of scale.

    python benchmarks/scale.py [--scenes 6] [--pairs ../shared/data/rgbd_tum]

Held-out scenes with exact depth stand in for a perfect relative network: their inverse depth with a random scale and shift.
Sparse points: 300 of the true ones with 2 % noise, 30 % of them wrong by factors of up to 4. Ground: the camera's height and
pitch are known, points are not. Then the same of a network with local errors, the embedded model, and real photos.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch

from depth_anything_ros.demo.families import FAMILIES, HELD_OUT_SEED, random_scene
from depth_anything_ros.demo.raycast import render
from depth_anything_ros.demo.scenes import LABELS
from depth_anything_ros.demo.sources import photographed_scene
from depth_anything_ros.geometry import Camera, FitError, ScaleSettings, Transform, fit_inverse_depth, unproject
from depth_anything_ros.inference import DepthEstimator, Prediction
from depth_anything_ros.pipeline import DepthSettings, Frame, Refiner, RefineSettings, Side

HEIGHT, WIDTH, GRID = 480, 640, (192, 256)
DEPTH = DepthSettings(0.1, 30.0)
OPTICAL = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])  # (optical <- body) of REP-103


def mount_of(view, seen, camera: Camera) -> Transform:
    """(level frame on the ground <- optical) of a procedural view; some scenes' floors are boxes of 1 cm."""
    turn = Transform.from_rpy(0, 0, 0, 0, float(view.pitch), 0).rotation @ OPTICAL.T
    points = unproject(seen.depth[0], camera.rays()).numpy()[(seen.label[0] == LABELS.index("ground")).numpy()]
    return Transform(turn, np.array([0, 0, -float(np.median(points @ turn[2]))]))


def relative(depth: np.ndarray, random: np.random.Generator, local: float = 0.0) -> Prediction:
    """What a relative network says of depth (H, W), with smooth local errors of that share."""
    inverse = cv2.resize(1 / depth.astype(np.float32), GRID[::-1], interpolation=cv2.INTER_AREA)
    inverse *= np.exp(local * cv2.resize(random.standard_normal((6, 8)), GRID[::-1], interpolation=cv2.INTER_CUBIC))
    values = (inverse - random.uniform(-0.3, 0.05)) * random.uniform(0.5, 50)
    return Prediction(torch.from_numpy(values.astype(np.float32)), "relative", depth.shape, False, "perfect")


def sparse(depth: np.ndarray, camera: Camera, random: np.random.Generator, outliers: float = 0.3) -> np.ndarray:
    """(300, 3) points of a range sensor that sits in the camera, some of them wrong."""
    u, v = random.integers(0, camera.width, 300), random.integers(0, camera.height, 300)
    z = depth[v, u] * (1 + 0.02 * random.standard_normal(300))
    wrong = random.random(300) < outliers
    z[wrong] *= np.exp(random.uniform(-np.log(4), np.log(4), wrong.sum()))
    points = np.stack([(u - camera.cx) / camera.fx * z, (v - camera.cy) / camera.fy * z, z], 1)
    return points[np.isfinite(z) & (z < 30)]


def off(metres: torch.Tensor | None, depth: np.ndarray) -> float:
    """Median share by which depth is off; NaN if there is none."""
    if metres is None:
        return np.nan
    found = metres.numpy()
    seen = np.isfinite(found) & (depth < 20)
    return float(np.median(np.abs(found[seen] / depth[seen] - 1)))


def refine(prediction: Prediction, rgb, camera: Camera, source: str, side: Side) -> torch.Tensor | None:
    """One frame on its own."""
    settings = RefineSettings(DEPTH, ScaleSettings(source))
    return Refiner().refine(Frame(rgb, camera), prediction, settings, side).metres


def table(title: str, rows: dict[str, list[float]]) -> None:
    """A row for each source: median, 90th percentile and worst of the frames' medians, and frames without metres."""
    print(title)
    for name, errors in rows.items():
        values = np.asarray(errors)
        good = values[np.isfinite(values)]
        if len(good):
            print(
                f"  {name:34} {np.median(good):6.1%} {np.percentile(good, 90):6.1%} {good.max():6.1%}"
                f"   of {len(values)} frames, {len(values) - len(good)} refused"
            )
        else:
            print(f"  {name:34} all {len(values)} frames refused")


def scenes(count: int) -> None:
    """Procedural scenes."""
    estimator = DepthEstimator.create("demo", device="cpu")
    names = ("sparse", "ground", "sparse, local errors of 2 %", "ground, local errors of 2 %")
    perfect: dict[str, list[float]] = {name: [] for name in names}
    demo: dict[str, list[float]] = {"as it is": [], "sparse": [], "ground": []}
    random = np.random.default_rng(0)
    for family in FAMILIES:
        for seed in range(HELD_OUT_SEED + 5000, HELD_OUT_SEED + 5000 + count):
            scene, view = random_scene(seed, family)
            seen = render(scene, view, WIDTH, HEIGHT)
            depth = seen.depth[0].clamp_max(1000).numpy()
            focal = float(view.focal) * WIDTH
            camera = Camera(WIDTH, HEIGHT, focal, focal, (WIDTH - 1) / 2, (HEIGHT - 1) / 2)
            rgb = photographed_scene(seed, family, WIDTH, HEIGHT).rgb
            by_points = Side(sensor=Transform.identity(), points=sparse(depth, camera, random))
            by_ground = Side(mount=mount_of(view, seen, camera))
            for local, said in ((0.0, ""), (0.02, ", local errors of 2 %")):
                prediction = relative(depth, random, local)
                perfect[f"sparse{said}"].append(off(refine(prediction, rgb, camera, "sparse", by_points), depth))
                perfect[f"ground{said}"].append(off(refine(prediction, rgb, camera, "ground", by_ground), depth))
            said = estimator.predict(rgb)
            demo["as it is"].append(off(refine(said, rgb, camera, "none", Side()), depth))
            demo["sparse"].append(off(refine(said, rgb, camera, "sparse", by_points), depth))
            demo["ground"].append(off(refine(said, rgb, camera, "ground", by_ground), depth))
    table("perfect relative network, random scale and shift", perfect)
    table("embedded model (metric)", demo)
    for source in ("sparse", "ground"):
        better = np.asarray(demo[source]) <= np.asarray(demo["as it is"]) + 0.005
        print(
            f"  {source}: no worse than as it is (within 0.5 %) in {better.sum()} of {np.isfinite(demo[source]).sum()} frames"
        )


def outliers() -> None:
    """The fit alone, by the share of wrong points."""
    for share in (0.0, 0.3, 0.4, 0.5):
        errors = []
        for seed in range(200):
            random = np.random.default_rng(seed)
            z = random.uniform(0.5, 8, 300)
            inverse = (1 / z - 0.1) / 0.3
            z *= 1 + 0.02 * random.standard_normal(300)
            wrong = random.random(300) < share
            z[wrong] *= np.exp(random.uniform(-np.log(4), np.log(4), wrong.sum()))
            try:
                fit = fit_inverse_depth(inverse, 1 / z, shift=True)
                truth = 0.3 * inverse + 0.1
                errors.append(np.median(np.abs((fit.a * inverse + fit.b) / truth - 1)))
            except FitError:
                errors.append(np.nan)
        print(
            f"fit, {share:.0%} wrong: off by {np.nanmedian(errors):.2%} (worst {np.nanmax(errors):.2%}, "
            f"{np.isnan(errors).sum()} refused)"
        )


def pairs(folder: Path) -> None:
    """Real photos with true depth, through the embedded model."""
    estimator = DepthEstimator.create("demo", device="cpu")
    camera, random = Camera(640, 480, 520.9, 521.0, 325.1, 249.7), np.random.default_rng(0)
    rows: dict[str, list[float]] = {"embedded model as it is": [], "embedded model, sparse": [], "perfect network, sparse": []}
    for number in (1, 2):
        rgb = cv2.cvtColor(cv2.imread(str(folder / f"{number}.png")), cv2.COLOR_BGR2RGB)
        depth = cv2.imread(str(folder / f"{number}_depth.png"), cv2.IMREAD_UNCHANGED) / 5000.0
        depth = np.where(depth > 0, depth, np.nan)
        side = Side(sensor=Transform.identity(), points=sparse(depth, camera, random))
        said = estimator.predict(rgb)
        perfect = relative(np.where(np.isnan(depth), np.nanmedian(depth), depth), random)
        rows["embedded model as it is"].append(off(refine(said, rgb, camera, "none", Side()), depth))
        rows["embedded model, sparse"].append(off(refine(said, rgb, camera, "sparse", side), depth))
        rows["perfect network, sparse"].append(off(refine(perfect, rgb, camera, "sparse", side), depth))
    table("real pairs", rows)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=6, help="of each family")
    parser.add_argument("--pairs", type=Path, help="folder of TUM pairs")
    args = parser.parse_args()
    print("median, 90th percentile and worst over frames of the median share by which depth is off")
    outliers()
    scenes(args.scenes)
    if args.pairs:
        pairs(args.pairs)


if __name__ == "__main__":
    main()
