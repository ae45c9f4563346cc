#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the stabiliser does to flicker, to an approach, over time, and what it costs.

    python benchmarks/stabilizer.py [--video robot.mp4] [--frames 500]

Walks through held-out procedural scenes with exact depth, whose scale is jittered from frame to frame as networks jitter it; a
straight drive at a textured wall, where hiding the approach would be fatal; a cut; a long loop. Flicker: mean change of the
logarithm of (estimated / true) depth from one frame to the next, medians over the image. For a video there is no truth: the
change of the depth of points tracked from frame to frame, the camera's own motion included.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import cv2
import numpy as np
import torch

from depth_anything_ros.demo.families import HELD_OUT_SEED, random_scene
from depth_anything_ros.demo.photograph import photograph
from depth_anything_ros.demo.raycast import render
from depth_anything_ros.demo.scenes import View
from depth_anything_ros.demo.sources import open_source
from depth_anything_ros.geometry import Camera, Stabilizer, StabilizerSettings
from depth_anything_ros.inference import DepthEstimator

WIDTH, HEIGHT, GRID = 640, 480, (192, 256)
RATE = 10.0  # frames / s
JITTER = 0.15
SETTINGS = StabilizerSettings(enabled=True)
Shot = tuple[np.ndarray, np.ndarray, Camera]  # rgb, true depth at the grid, camera


def camera_of(focal: float, width: int = WIDTH, height: int = HEIGHT) -> Camera:
    """Principal point in the middle; focal length in image widths."""
    return Camera(width, height, focal * width, focal * width, (width - 1) / 2, (height - 1) / 2)


def walk(seed: int, family: str, frames: int, speed: float, sway: float = 0.1) -> Iterator[Shot]:
    """Forward with a sway of the head; and back again where the scene is too short."""
    scene, view = random_scene(seed, family)
    room = max(0.5, float(render(scene, view, 32, 24, shadows=False).depth[0, :13].min().clamp_max(8)) - 1.0)
    generator = torch.Generator().manual_seed(seed)
    for number in range(frames):
        along = speed * number / RATE
        along = room - abs(along % (2 * room) - room)
        yaw = view.yaw + sway * np.sin(number / 9)
        step = torch.stack([along * torch.cos(view.yaw), along * torch.sin(view.yaw), torch.zeros(1)], -1)
        seen = render(scene, View(view.position + step, yaw, view.pitch, view.focal), WIDTH, HEIGHT)
        image = photograph(seen.rgb.permute(0, 3, 1, 2), generator.manual_seed(seed), one_camera=True)
        rgb = np.ascontiguousarray((image[0] * 255).byte().permute(1, 2, 0).numpy())
        yield rgb, at_grid(seen.depth[0].clamp_max(50).numpy()), camera_of(float(view.focal))


def at_grid(depth: np.ndarray) -> np.ndarray:
    """The depth of every grid pixel's centre."""
    rows, columns = (((np.arange(n) + 0.5) * size / n).astype(int) for n, size in zip(GRID, depth.shape))
    return depth[rows][:, columns]


def wall(start: float, end: float, speed: float, rate: float = RATE) -> Iterator[Shot]:
    """Straight at a flat wall, and nothing else in the image: no depth but one."""
    texture = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (2048, 2048, 3), np.uint8), (0, 0), 3)
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX)
    camera = camera_of(0.9)
    v, u = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    for z in np.arange(start, end, -speed / rate):
        x, y = (u - camera.cx) / camera.fx * z * 150 + 1024, (v - camera.cy) / camera.fy * z * 150 + 1024
        yield cv2.remap(texture, x.astype(np.float32), y.astype(np.float32), cv2.INTER_AREA), np.full(GRID, z), camera


def run(shots: list[Shot], factors: np.ndarray, settings=SETTINGS, noise: float = 0.0) -> tuple[list, list, float]:
    """Estimated / true depth before and after (medians of each frame), and the seconds for a frame."""
    random, stabilizer, before, after, spent = np.random.default_rng(1), Stabilizer(settings), [], [], []
    for number, ((rgb, depth, camera), factor) in enumerate(zip(shots, factors)):
        bumps = 1.0
        if noise:  # errors of a network: smooth, and others in each frame
            bumps = np.exp(noise * cv2.resize(random.standard_normal((6, 8)), GRID[::-1], interpolation=cv2.INTER_CUBIC))
        inverse = torch.from_numpy(1 / (depth * factor * bumps)).float()
        start = time.perf_counter()
        steady = stabilizer.update(inverse, rgb, camera, False, int(1e9 + number / RATE * 1e9))
        spent.append(time.perf_counter() - start)
        near = depth < 20
        before.append(float(np.median(1 / inverse.numpy()[near] / depth[near])))
        after.append(float(np.median(1 / steady.numpy()[near] / depth[near])))
    return before, after, float(np.median(spent))


def flicker(ratios: list[float]) -> float:
    """Mean change of the logarithm of the scale."""
    return float(np.abs(np.diff(np.log(ratios))).mean())


def error(ratios: list[float]) -> float:
    """Mean share by which depth is off."""
    return float(np.abs(np.asarray(ratios) - 1).mean())


def video(path: str, frames: int) -> None:
    """The embedded model on a real video."""
    estimator, stabilizer = DepthEstimator.create("demo", device="cpu"), Stabilizer(SETTINGS)
    last, changes, states = None, [], []
    for number, shot in zip(range(frames), open_source(path, 640)):
        height, width = shot.rgb.shape[:2]
        prediction = estimator.predict(shot.rgb)
        plain = 1 / prediction.tensor
        camera = camera_of(0.8, width, height)
        steady = stabilizer.update(plain, shot.rgb, camera, prediction.align_corners, int(1e9 + number / RATE * 1e9))
        states.append(stabilizer.state)
        grey = cv2.cvtColor(shot.rgb, cv2.COLOR_RGB2GRAY)
        maps = [cv2.resize(inverse.numpy(), (width, height)) for inverse in (plain, steady)]
        if last is not None:
            corners = cv2.goodFeaturesToTrack(last[0], 400, 0.01, 10)
            now, good, _ = cv2.calcOpticalFlowPyrLK(last[0], grey, corners, None)
            a, b = corners[good[:, 0] == 1].reshape(-1, 2), now[good[:, 0] == 1].reshape(-1, 2)
            inside = (b >= 0).all(1) & (b < (width - 1, height - 1)).all(1)
            (ua, va), (ub, vb) = a[inside].astype(int).T, b[inside].astype(int).T
            changes.append([float(np.median(np.log(m[vb, ub] / p[va, ua]))) for m, p in zip(maps, last[1])])
        last = grey, maps
    plain, steady = np.abs(np.asarray(changes)).mean(0)
    print(f"video, {len(changes) + 1} frames: {plain:.4f} -> {steady:.4f}  {plain / steady:.1f} x", end="  ")
    print({state: states.count(state) for state in sorted(set(states))})


def main() -> None:
    """Print a row for each test."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--video", help="a real one")
    parser.add_argument("--frames", type=int, default=500, help="of the long loop")
    args = parser.parse_args()
    random = np.random.default_rng(0)
    print("walk, scale jittered by 15 %: flicker before -> after; mean error of scale; time")
    for family in ("room", "corridor", "hall", "street"):
        for noise in (0.0, 0.1):
            shots = list(walk(HELD_OUT_SEED + 11, family, 80, 0.5))
            factors = 1 + random.uniform(-JITTER, JITTER, len(shots))
            before, after, spent = run(shots, factors, noise=noise)
            print(
                f"{family:9} noise {noise:.0%}: {flicker(before):.4f} -> {flicker(after):.4f}"
                f"  {flicker(before) / flicker(after):5.1f} x"
                f"  error {error(before):.1%} -> {error(after):.1%}  {1000 * spent:.1f} ms",
                flush=True,
            )
    for rate in (30.0, 10.0, 5.0):
        shots = list(wall(6.0, 1.0, 1.0, rate))
        before, after, _ = run(shots, np.ones(len(shots)))
        print(f"wall at 1 m/s, {rate:.0f} Hz: worst error {max(abs(np.asarray(after) - 1)):.2%}", end="; ")
        before, after, _ = run(shots, 1 + random.uniform(-JITTER, JITTER, len(shots)))
        print(f"jittered: error {error(before):.1%} -> {error(after):.1%}, worst {max(abs(np.asarray(after) - 1)):.1%}")
    shots = list(walk(HELD_OUT_SEED + 12, "room", args.frames, 0.5))
    _, after, _ = run(shots, np.ones(len(shots)))
    print(f"drift in {len(shots)} frames: worst {max(abs(np.asarray(after) - 1)):.2%}")
    shots = list(walk(HELD_OUT_SEED + 13, "corridor", 20, 0.5)) + list(walk(HELD_OUT_SEED + 14, "hall", 5, 0.5))
    factors = np.r_[np.full(20, 1.3), np.ones(5)]
    _, after, _ = run(shots, factors)
    print("a cut after frame 20, scale 1.3 before and 1 behind it: " + " ".join(f"{ratio:.3f}" for ratio in after[18:24]))
    if args.video:
        video(args.video, 175)


if __name__ == "__main__":
    main()
