# SPDX-License-Identifier: Apache-2.0
"""The stabiliser against exact scenes: it takes jumps of scale away, and never an approach."""

import cv2
import numpy as np
import pytest
import torch

from depth_anything_ros.demo.families import HELD_OUT_SEED, random_scene
from depth_anything_ros.demo.raycast import render
from depth_anything_ros.demo.scenes import View
from depth_anything_ros.geometry import Camera, Coverage, Stabilizer, StabilizerSettings

WIDTH, HEIGHT = 320, 240
CAMERA = Camera(WIDTH, HEIGHT, 280.0, 280.0, 159.5, 119.5)
TICK = 10**8  # ten frames a second


class Run:
    """A stabiliser that is fed (rgb, true depth) with a factor each; `ratios`: estimated over true depth of each frame."""

    def __init__(self, camera=CAMERA, **settings):
        self.stabilizer = Stabilizer(StabilizerSettings(enabled=True, **settings))
        self.camera, self.stamp, self.ratios, self.states = camera, 10**9, [], []

    def feed(self, rgb, depth, factor=1.0, shift=0.0, tick=TICK, covered=None):
        self.stamp += tick
        inverse = torch.from_numpy(1 / (depth * factor) + shift).float()
        steady = self.stabilizer.update(inverse, rgb, self.camera, False, self.stamp, covered).numpy()
        self.ratios.append(float(np.median(1 / steady / depth)))
        self.states.append(self.stabilizer.state)
        return steady


def texture(seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (2048, 2048, 3), np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)


WALL = texture()


def wall(z, aside=0.0):
    """A textured wall that fills the view, z metres ahead."""
    v, u = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    x, y = (u - 159.5) / 280 * z * 150 + 1024 + 150 * aside, (v - 119.5) / 280 * z * 150 + 1024
    return cv2.remap(WALL, x.astype(np.float32), y.astype(np.float32), cv2.INTER_AREA), np.full((60, 80), z)


@pytest.fixture(scope="module")
def walk():
    """A walk of 30 frames through a hall: rgb, true depth at a grid; and the camera."""
    scene, view = random_scene(HELD_OUT_SEED + 11, "hall")
    shots = []
    for number in range(30):
        along = 0.05 * number
        step = torch.stack([along * torch.cos(view.yaw), along * torch.sin(view.yaw), torch.zeros(1)], -1)
        seen = render(
            scene, View(view.position + step, view.yaw + 0.08 * np.sin(number / 9), view.pitch, view.focal), WIDTH, HEIGHT
        )
        rgb = np.ascontiguousarray((seen.rgb[0] * 255).byte().numpy())
        shots.append((rgb, seen.depth[0].clamp_max(30).numpy()[1::4, 1::4]))
    focal = float(view.focal) * WIDTH
    return shots, Camera(WIDTH, HEIGHT, focal, focal, 159.5, 119.5)


def flicker(ratios):
    return np.abs(np.diff(np.log(ratios))).mean()


@pytest.mark.parametrize("rate", [30, 10, 5])
def test_an_approach_is_never_hidden(rate):
    """At 1 m/s straight at a wall, the whole image at one distance: within 5 % in every frame."""
    run = Run()
    for z in np.arange(5.0, 0.8, -1 / rate):
        run.feed(*wall(z), tick=10**9 // rate)
    assert max(np.abs(np.asarray(run.ratios) - 1)) < 0.05
    assert set(run.states[1:]) == {"tracking"}


def test_without_the_image_an_approach_would_be_hidden():
    """The negative control: the same depths, but a picture that stands still, as if the scale jumped."""
    run, (rgb, _) = Run(), wall(5.0)
    for z in np.arange(5.0, 0.8, -0.1):
        run.feed(rgb, np.full((60, 80), z))
    assert max(np.abs(np.asarray(run.ratios) - 1)) > 0.5


def test_jumps_of_scale_are_taken_away_on_a_walk(walk):
    shots, camera = walk
    factors = 1 + np.random.default_rng(0).uniform(-0.15, 0.15, len(shots))
    run = Run(camera)
    for (rgb, depth), factor in zip(shots, factors):
        run.feed(rgb, depth, factor)
    assert flicker(run.ratios) < flicker(factors) / 5
    assert np.abs(np.asarray(run.ratios) - 1).mean() <= np.abs(factors - 1).mean()


def test_true_depth_stays_true_on_a_walk(walk):
    shots, camera = walk
    run = Run(camera)
    for rgb, depth in shots:
        run.feed(rgb, depth)
    assert max(np.abs(np.asarray(run.ratios) - 1)) < 0.02


def test_jumps_of_shift_are_taken_away_too(walk):
    shots, camera = walk
    random = np.random.default_rng(0)
    run, plain = Run(camera), []
    for rgb, depth in shots:
        shift = random.uniform(-0.03, 0.03)
        plain.append(float(np.median(1 / (1 / depth + shift) / depth)))
        run.feed(rgb, depth, shift=shift)
    assert flicker(run.ratios) < flicker(plain) / 3


def test_a_standing_camera_over_noise_sees_a_standing_world(walk):
    (rgb, depth), camera = walk[0][0], walk[1]
    random = np.random.default_rng(0)
    changes = {}
    for pixels in (False, True):
        run, last, change = Run(camera, pixels=pixels), None, []
        for _ in range(20):
            noisy = np.clip(rgb + random.normal(0, 2, rgb.shape), 0, 255).astype(np.uint8)
            steady = run.feed(noisy, depth * np.exp(0.05 * random.standard_normal(depth.shape)), random.uniform(0.85, 1.15))
            change.append(np.abs(np.log(steady / last)).mean() if last is not None else 0.0)
            last = steady
        assert set(run.states[1:]) == {"still"}
        changes[pixels] = np.mean(change[5:])
    assert changes[True] < changes[False] / 2.5
    moved = rgb.copy()  # something walks into the view: there, nothing is averaged
    moved[100:160, 100:180] = texture(1)[:60, :80]
    nearer = depth.copy()
    nearer[25:40, 25:45] = 0.5
    steady = run.feed(moved, nearer)
    assert np.abs(1 / steady[29:37, 29:41] - 0.5).max() < 0.05


def test_a_cut_begins_anew_at_once(walk):
    shots, camera = walk
    run = Run(camera)
    for rgb, depth in shots[:10]:
        run.feed(rgb, depth, 1.3)
    run.feed(texture(5)[:HEIGHT, :WIDTH].copy(), np.full((60, 80), 3.0))
    assert run.ratios[-1] == pytest.approx(1.0, abs=1e-6) and run.states[-1] == "new scene"
    assert run.ratios[-2] == pytest.approx(1.3, abs=0.05)


@pytest.mark.parametrize("tick", [-(10**9), 2 * 10**9, 0])
def test_time_that_jumps_begins_anew(tick):
    run = Run()
    for z in (3.0, 2.95, 2.9):
        run.feed(*wall(z), 1.2)
    run.feed(*wall(2.85), tick=tick)
    assert run.ratios[-1] == pytest.approx(1.0, abs=1e-6) and run.states[-1] == "new scene"


def test_a_blank_view_is_passed_on_as_it_is():
    run, blank = Run(), np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    for factor in (1.0, 1.1, 0.9):
        run.feed(blank, np.full((60, 80), 2.0), factor)
    assert run.states[1:] == ["blind", "blind"]
    np.testing.assert_allclose(run.ratios, (1.0, 1.1, 0.9), rtol=1e-5)


def test_a_blank_view_after_a_while_is_passed_on_as_it_is():
    run, blank = Run(), np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    for z in (3.0, 2.95, 2.9, 2.85):
        run.feed(*wall(z), 1.2 if z == 3.0 else 1.0)
    assert run.ratios[-1] > 1.03
    run.feed(blank, np.full((60, 80), 2.0))  # another scene, says the picture; then nothing is to be tracked
    run.feed(blank, np.full((60, 80), 2.0), 1.1)
    assert run.states[-1] == "blind" and run.ratios[-1] == pytest.approx(1.1)


def test_the_black_rim_of_a_rectified_image_is_no_sign_of_standing_still():
    v, u = np.mgrid[0:HEIGHT, 0:WIDTH]
    covered = np.hypot((u - 160) / 155, (v - 120) / 115) + 0.1 * np.sin(u / 7) * np.sin(v / 5) < 0.9  # a wavy rim with corners
    runs = {}
    for name, mask in (("masked", Coverage(covered)), ("not", None)):
        runs[name] = Run()
        for z in np.arange(5.0, 0.8, -0.1):
            rgb, depth = wall(z)
            runs[name].feed(np.where(covered[..., None], rgb, 0), depth, covered=mask)
    assert max(np.abs(np.asarray(runs["masked"].ratios) - 1)) < 0.05
    assert max(np.abs(np.asarray(runs["not"].ratios) - 1)) > 0.05  # the negative control


def test_pixels_without_a_ray_cost_nothing_but_themselves():
    """The corners of a strong lens, where the polynomial folds back: NaN rays."""
    lens = Camera(WIDTH, HEIGHT, 200.0, 200.0, 159.5, 119.5, "plumb_bob", (-0.35, 0.02, 0.0, 0.0, 0.0))
    rays = lens.rays().numpy()
    assert 0.001 < np.isnan(rays).mean() < 0.3
    run = Run(lens)
    for number in range(12):
        z = 3.0 - 0.05 * number
        x, y = np.nan_to_num(rays[0]) * z * 150 + 1024, np.nan_to_num(rays[1]) * z * 150 + 1024
        rgb = cv2.remap(WALL, x.astype(np.float32), y.astype(np.float32), cv2.INTER_AREA)
        run.feed(rgb, np.full((60, 80), z), 1.15 if number % 2 else 0.85)
    assert set(run.states[1:]) == {"tracking"}
    assert flicker(run.ratios) < 0.06


@pytest.mark.parametrize("speed, rate", [(1.0, 10), (0.3, 30)])
def test_something_plain_that_comes_nearer_is_not_held_back_by_averaging_pixels(speed, rate):
    """A standing camera, a textured wall, and a grey box before it whose pixels show the same all the time."""
    rgb, depth = wall(5.0)
    rgb = rgb.copy()
    rgb[80:160, 120:200] = 128
    run = Run(pixels=True)
    worst = 0.0
    for z in np.arange(3.0, 1.0, -speed / rate):
        scene = depth.copy()
        scene[20:40, 30:50] = z
        steady = run.feed(rgb, scene, tick=10**9 // rate)
        worst = max(worst, np.abs(1 / steady[24:36, 34:46] / z - 1).max())
    assert worst < 0.05 and set(run.states[1:]) == {"still"}


@pytest.mark.parametrize("speed, rate, memory", [(0.05, 30, 50), (0.06, 30, 20), (1.0, 60, 50)])
def test_a_slow_or_finely_sampled_approach_is_not_taken_for_standing_still(speed, rate, memory):
    run = Run(memory=memory)
    start = 8.0 if speed == 1.0 else 2.0
    for z in np.arange(start, start - (3.0 if speed == 1.0 else 0.3), -speed / rate):
        run.feed(*wall(z), tick=10**9 // rate)
    assert max(np.abs(np.asarray(run.ratios) - 1)) < 0.05


def test_errors_do_not_add_up(walk):
    """500 frames of true depth, to and fro."""
    shots, camera = walk
    run = Run(camera)
    for number in range(500):
        run.feed(*shots[29 - abs(number % 58 - 29)])
    assert max(np.abs(np.asarray(run.ratios) - 1)) < 0.02


def test_another_calibration_begins_anew():
    run = Run()
    run.feed(*wall(3.0), 1.2)
    run.camera = Camera(WIDTH, HEIGHT, 281.0, 280.0, 159.5, 119.5)
    run.feed(*wall(2.95))
    assert run.states[-1] == "new scene" and run.ratios[-1] == pytest.approx(1.0, abs=1e-6)
