# SPDX-License-Identifier: Apache-2.0
"""Metres out of inverse depth: fits against known scales, the ground against ray casting in the test, and when metres stop."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from depth_anything_ros.geometry import (
    Camera,
    FitError,
    ScaleEstimator,
    ScaleSettings,
    StabilizerSettings,
    Transform,
    fit_inverse_depth,
    ground_inverse_depth,
)
from depth_anything_ros.inference import Prediction
from depth_anything_ros.pipeline import DepthSettings, Frame, Refiner, RefineSettings, Side

SECOND = 10**9
CAMERA = Camera(320, 240, 300.0, 310.0, 155.0, 125.0)
RGB = np.zeros((240, 320, 3), np.uint8)
SCALE, SHIFT = 0.04, 0.07  # 1 / z = SCALE * inverse + SHIFT


def scattered(seed, share_wrong, count=300, noise=0.02):
    """Inverse depth of a network, 1 / metres of a sensor with noise and outliers, and the true 1 / metres."""
    random = np.random.default_rng(seed)
    true = 1 / random.uniform(0.6, 8, count)
    seen = true / (1 + noise * random.standard_normal(count))
    wrong = random.random(count) < share_wrong
    seen[wrong] *= np.exp(random.uniform(-1.4, 1.4, wrong.sum()))
    return (true - SHIFT) / SCALE, seen, true


@pytest.mark.parametrize("share_wrong", [0.0, 0.3, 0.45])
def test_scale_and_shift_are_found_whatever_the_outliers_say(share_wrong):
    for seed in range(20):
        inverse, seen, true = scattered(seed, share_wrong)
        fit = fit_inverse_depth(inverse, seen, shift=True)
        assert np.median(np.abs((fit.a * inverse + fit.b) / true - 1)) < 0.01
        assert fit.points == 300 and abs(fit.inliers / 300 - (1 - share_wrong)) < 0.12 and fit.residual < 0.03


def test_plain_least_squares_would_be_wrong():
    """The negative control."""
    inverse, seen, true = scattered(0, 0.3)
    a, b = np.polyfit(inverse, seen, 1)
    assert np.median(np.abs((a * inverse + b) / true - 1)) > 0.02


def test_a_metric_network_gets_a_scale_only_and_is_never_made_worse():
    random = np.random.default_rng(0)
    true = 1 / random.uniform(0.6, 8, 200)
    fit = fit_inverse_depth(1.3 * true, true, shift=False)
    assert (fit.b, round(fit.a, 6)) == (0.0, round(1 / 1.3, 6))
    # Half of the points say one thing tightly, the others something else: the tight half is a trap if it is farther off.
    inverse = true * np.where(np.arange(200) < 90, 1.3, 1 + 0.05 * random.standard_normal(200))
    fit = fit_inverse_depth(inverse, true, shift=False)
    assert np.median(np.abs(fit.a * inverse / true - 1)) <= np.median(np.abs(inverse / true - 1))


@pytest.mark.parametrize(
    "inverse, truth, shift, words",
    [
        ([1.0], [1.0], True, "1 points, expected 2"),
        ([], [], False, "0 points, expected 1"),
        (np.linspace(1, 2, 50), 1 / np.linspace(3.0, 2.0, 50), True, "cannot be told apart"),
        (np.linspace(1, 2, 50), np.linspace(2, 0.5, 50), True, "contradict"),
        (np.full(50, 3.0), np.linspace(0.5, 2, 50), True, "contradict|one distance"),
        ([np.nan, np.inf, 1.0], [1.0, 1.0, -1.0], False, "0 points"),
    ],
)
def test_what_does_not_determine_a_scale_is_refused(inverse, truth, shift, words):
    with pytest.raises(FitError, match=words):
        fit_inverse_depth(np.asarray(inverse), np.asarray(truth), shift)


def tilted(height=0.6, pitch=0.3, roll=0.1):
    """(level frame on the ground <- optical) of a camera that looks down by `pitch`."""
    body = Transform.from_rpy(0.2, 0, height, roll, pitch, 0.4)
    return body @ Transform.from_rpy(0, 0, 0, -np.pi / 2, 0, -np.pi / 2)


def test_the_ground_is_where_rays_meet_it():
    mount = tilted()
    expected = np.full((240, 320), np.nan)
    for v in range(0, 240, 40):
        for u in range(0, 320, 40):
            ray = np.array([(u - 155) / 300, (v - 125) / 310, 1.0])
            direction = mount.apply(ray[None])[0] - mount.translation
            expected[v, u] = -direction[2] / 0.6  # z = 0 is met after 0.6 / -direction_z times the ray, whose depth is 1
    found = ground_inverse_depth(CAMERA.rays(), mount.rotation[2], 0.6).numpy()
    seen = np.isfinite(expected)
    np.testing.assert_allclose(found[seen], expected[seen], atol=1e-6)


def floor_and_boxes(mount, share=0.4):
    """True inverse depth (240, 320) of level ground below a wall at 6 m, with boxes in front of some of it."""
    v, u = np.mgrid[0:240, 0:320]
    rays = np.stack([(u - 155) / 300, (v - 125) / 310, np.ones_like(u)], -1)
    inverse = np.maximum(-(rays @ mount.rotation[2]) / mount.translation[2], 1 / 6)
    random = np.random.default_rng(0)
    while (near := inverse > 1.15 * np.maximum(-(rays @ mount.rotation[2]) / mount.translation[2], 1 / 6)).mean() < share:
        top, left = random.integers(60, 200), random.integers(0, 280)
        box = slice(top, top + 60), slice(left, left + 60)
        inverse[box] = np.maximum(inverse[box], 1.2 * inverse[box].max())
    assert near.mean() >= share
    return inverse


def said(inverse, kind="relative", network="v2/vits/518"):
    return Prediction(torch.from_numpy(np.asarray(inverse, np.float32)), kind, inverse.shape, False, network)


NOTHING = Side()


def refine(refiner, inverse, source, side=NOTHING, stamp=SECOND, by="v2/vits/518", camera=CAMERA, depth=None, **scale):
    settings = RefineSettings(depth or DepthSettings(0.1, 50.0), ScaleSettings(source, **scale))
    return refiner.refine(Frame(RGB, camera, None, stamp), said(inverse, network=by), settings, side)


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_a_camera_of_known_height_over_level_ground(share):
    mount = tilted()
    true = floor_and_boxes(mount, share)
    result = refine(Refiner(), (true - SHIFT) / SCALE, "ground", Side(mount=mount))
    assert result.scale.valid and np.median(np.abs(result.metres.numpy() * true - 1)) < 0.01
    wrong = Transform(mount.rotation, 1.2 * mount.translation)  # the negative control: another height, other metres
    result = refine(Refiner(), (true - SHIFT) / SCALE, "ground", Side(mount=wrong))
    assert abs(np.median(result.metres.numpy() * true) - 1.2) < 0.03


def sensor_points(inverse_depth, mount, seed=0, count=200):
    """Points of a range sensor, in its own frame, on a scene of this inverse depth; mount is (optical <- sensor)."""
    random = np.random.default_rng(seed)
    u, v = random.integers(0, 320, count), random.integers(0, 240, count)
    z = 1 / inverse_depth[v, u]
    optical = np.stack([(u - 155) / 300 * z, (v - 125) / 310 * z, z], 1)
    return mount.inverse().apply(optical)


def test_points_of_a_sensor_elsewhere_on_the_robot():
    true = floor_and_boxes(tilted())
    mount = Transform.from_rpy(0.1, -0.3, 0.2, 1.5, 0.1, 1.5)
    points = sensor_points(true, mount)
    points[::3] *= 1.7  # outliers
    result = refine(Refiner(), (true - SHIFT) / SCALE, "sparse", Side(sensor=mount, points=points))
    assert np.median(np.abs(result.metres.numpy() * true - 1)) < 0.01
    astray = Side(sensor=Transform.from_rpy(0.1, -0.3, 0.2, 1.5, 0.1, 1.2), points=points)
    result = refine(Refiner(), (true - SHIFT) / SCALE, "sparse", astray)  # the negative control: 17 degrees off
    assert result.metres is None or np.median(np.abs(result.metres.numpy() * true - 1)) > 0.01


def test_points_through_a_distorted_lens_fall_on_their_pixels():
    lens = Camera(320, 240, 300.0, 310.0, 155.0, 125.0, "plumb_bob", (-0.3, 0.1, 0.001, -0.002, 0.0))
    points = np.random.default_rng(0).uniform((-1, -0.7, 1.5), (1, 0.7, 4), (50, 3))
    k = np.array([[300, 0, 155], [0, 310, 125], [0, 0, 1.0]])
    expected, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), k, np.array(lens.distortion))
    np.testing.assert_allclose(lens.project(points), expected[:, 0], atol=1e-9)
    assert np.abs(lens.project(points) - CAMERA.project(points)).max() > 5
    assert np.isnan(CAMERA.project(np.array([[0, 0, -1.0], [0, 0, 0], [np.nan, 0, 1]]))).all()


def test_a_relative_network_has_no_metres_without_a_scale():
    assert refine(Refiner(), np.ones((240, 320)), "none").metres is None


def test_metres_stop_when_what_they_rest_on_changes_and_until_it_is_valid_again():
    true = floor_and_boxes(tilted())
    inverse, mount = (true - SHIFT) / SCALE, Transform.from_rpy(0.1, -0.3, 0.2, 1.5, 0.1, 1.5)
    good, none = Side(sensor=mount, points=sensor_points(true, mount)), Side(sensor=mount, problem="silent")
    changes = {
        "network": {"by": "v2/vits/280"},
        "calibration": {"camera": replace(CAMERA, fx=320.0)},
        "transform": {"side": replace(none, sensor=Transform.from_rpy(0.1, -0.3, 0.25, 1.5, 0.1, 1.5))},
        "settings": {"min_points": 31},
    }
    for name, change in changes.items():
        refiner = Refiner()
        assert refine(refiner, inverse, "sparse", none).metres is None
        assert refine(refiner, inverse, "sparse", good, 2 * SECOND).metres is not None
        held = refine(refiner, inverse, "sparse", none, 3 * SECOND)
        assert held.metres is not None and held.scale.problem == "silent" and held.scale.age == 1.0
        after = refine(refiner, inverse, "sparse", **{"side": none, "stamp": 3 * SECOND + 1, **change})
        assert after.metres is None and not after.scale.valid, name


def test_too_few_points_hold_the_scale_and_say_so_and_then_it_ends():
    true = floor_and_boxes(tilted())
    inverse, mount = (true - SHIFT) / SCALE, Transform.identity()
    few = Side(sensor=mount, points=sensor_points(true, mount, count=10))
    refiner = Refiner()
    assert refine(refiner, inverse, "sparse", few).scale.problem.endswith("points in view, expected 30 at least")
    refine(refiner, inverse, "sparse", Side(sensor=mount, points=sensor_points(true, mount)), 2 * SECOND)
    held = refine(refiner, inverse, "sparse", few, 4 * SECOND, hold=3.0)
    assert held.metres is not None and "expected 30 at least" in held.scale.problem and held.scale.age == 2.0
    ended = refine(refiner, inverse, "sparse", few, 6 * SECOND)
    assert ended.metres is None and "no good fit for 4.0 s" in ended.scale.problem


def test_fits_that_few_points_agree_on_are_refused():
    random = np.random.default_rng(0)
    estimator = ScaleEstimator(ScaleSettings("sparse"))
    pairs = random.uniform(1, 5, 300), random.uniform(0.1, 1, 300)
    scale = estimator.update(pairs, True, SECOND)
    assert not scale.valid and ("agree" in scale.problem or "contradict" in scale.problem)


def test_the_scale_follows_smoothly_and_begins_anew_when_time_goes_back():
    estimator = ScaleEstimator(ScaleSettings("sparse", smoothing=1.0))
    truth = 1 / np.linspace(0.5, 5, 100)

    def at(stamp, a):
        return estimator.update((truth / a, truth), False, stamp).a

    assert at(1 * SECOND, 1.0) == pytest.approx(1.0)
    assert at(2 * SECOND, 1.008) == pytest.approx(1 + 0.008 * (1 - np.exp(-1)))
    assert at(3 * SECOND, 1.5) == pytest.approx(1.5)  # no average of two scales is true of a network that has changed its own
    assert at(3 * SECOND, 1.505) == pytest.approx(1.505)  # a camera without stamps is followed, too
    assert at(1 * SECOND, 1.51) == pytest.approx(1.51)


def test_a_fixed_scale_belongs_to_its_network_and_its_camera():
    true = floor_and_boxes(tilted())
    inverse, fixed = (true - SHIFT) / SCALE, {"a": SCALE, "b": SHIFT, "network": "v2/vits/518", "focal": 310 / 240}
    result = refine(Refiner(), inverse, "fixed", **fixed)
    np.testing.assert_allclose(result.metres.numpy(), 1 / true, rtol=1e-4)
    for change, words in (
        ({"network": "v2/vits/280"}, "measured with network 'v2/vits/518'"),
        ({"camera": replace(CAMERA, fy=400.0)}, "focal length 1.292 short sides, but this one's is 1.667"),
        ({"camera": None}, "no calibration"),
    ):
        settings = RefineSettings(DepthSettings(0.1, 50.0), ScaleSettings("fixed", **fixed))
        network, camera = change.get("network", "v2/vits/518"), change.get("camera", CAMERA)
        result = Refiner().refine(Frame(RGB, camera), said(inverse, network=network), settings)
        assert result.metres is None and words in result.scale.problem


def test_metres_go_with_the_focal_length():
    """Twice the focal length of the training's cameras: things look twice as near."""
    depth = np.full((240, 320), 2.0)
    settings = RefineSettings(DepthSettings(0.1, 50.0), ScaleSettings("focal", training_focal=310 / 240 / 2))
    result = Refiner().refine(Frame(RGB, CAMERA), said(depth, "metric"), settings)
    np.testing.assert_allclose(result.metres.numpy(), 4.0, rtol=1e-5)
    assert Refiner().refine(Frame(RGB), said(depth, "metric"), settings).metres is None


def test_what_is_out_of_range_is_no_wall():
    """Relative output of 0 and less is beyond everything: +Inf inside, never a distance."""
    inverse = np.full((240, 320), 5.0)
    inverse[:80], inverse[80:120] = -1.0, 0.001
    fixed = {"a": 0.1, "b": 0.0, "network": "v2/vits/518"}
    metres = refine(Refiner(), inverse, "fixed", depth=DepthSettings(0.1, 50.0, 0.02), **fixed).metres.numpy()
    assert np.isposinf(metres[:118]).all() and np.allclose(metres[122:], 2.0)
    assert np.isnan(refine(Refiner(), inverse, "fixed", depth=DepthSettings(2.5, 50.0), **fixed).metres.numpy()[122:]).all()


def test_metres_follow_a_network_whose_scale_jumps_with_every_image():
    true = floor_and_boxes(tilted())
    side, refiner = Side(sensor=Transform.identity(), points=sensor_points(true, Transform.identity())), Refiner()
    random = np.random.default_rng(0)
    for number in range(8):
        a, b = SCALE * random.uniform(0.8, 1.25), SHIFT * random.uniform(0.5, 1.5)
        result = refine(refiner, (true - b) / a, "sparse", side, (1 + number) * SECOND // 10)
        assert np.median(np.abs(result.metres.numpy() * true - 1)) < 0.01 and result.scale.fit.residual < 0.02


def test_a_few_points_are_enough_to_end_a_scale_that_is_wrong():
    true = floor_and_boxes(tilted())
    inverse, mount, refiner = (true - SHIFT) / SCALE, Transform.identity(), Refiner()
    refine(refiner, inverse, "sparse", Side(sensor=mount, points=sensor_points(true, mount)))
    few = Side(sensor=mount, points=1.9 * sensor_points(true, mount, count=12))
    assert refine(refiner, inverse, "sparse", few, 2 * SECOND).metres is None


def test_a_sensor_that_is_put_right_is_believed_at_once_whatever_the_stabiliser_held():
    true = floor_and_boxes(tilted())
    inverse, mount = (true - SHIFT) / SCALE, Transform.from_rpy(0.1, -0.3, 0.2, 1.5, 0.1, 1.5)
    points = sensor_points(true, mount)
    rgb = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    settings = RefineSettings(DepthSettings(0.1, 50.0), ScaleSettings("sparse"), StabilizerSettings(True))
    refiner, ratios = Refiner(), []
    for number in range(8):  # the same scene all along; at first every distance is 20 % too long
        far = 1.2 if number < 5 else 1.0
        moved = Transform(mount.rotation, mount.translation + (0, 0, 0.05 * (number < 5)))
        side = Side(sensor=moved, points=moved.inverse().apply(far * mount.apply(points)))
        refined = refiner.refine(Frame(rgb, CAMERA, None, (1 + number) * SECOND // 10), said(inverse), settings, side)
        ratios.append(float(np.median(refined.metres.numpy() * true)))
    assert min(ratios[:5]) > 1.15 and np.abs(np.array(ratios[5:]) - 1).max() < 0.02


def test_what_a_metric_network_says_at_its_limit_is_out_of_range_with_any_scale():
    depth = np.full((240, 320), 3.0, np.float32)
    depth[:100] = 19.9
    prediction = Prediction(torch.from_numpy(depth), "metric", (240, 320), False, "v2_metric_indoor/vits/518", 20.0)
    for scale in (ScaleSettings(), ScaleSettings("focal", training_focal=0.5)):
        settings = RefineSettings(DepthSettings(0.05, 20.0, 0.02), scale)
        metres = Refiner().refine(Frame(RGB, CAMERA), prediction, settings).metres.numpy()
        assert np.isposinf(metres[:98]).all() and np.isfinite(metres[102:]).all()


def test_noise_in_the_sky_is_no_surface():
    inverse = np.abs(0.02 * np.random.default_rng(0).standard_normal((240, 320)))
    inverse[120:] = 5.0
    fixed = {"a": 0.1, "b": 0.0, "network": "v2/vits/518"}
    metres = refine(Refiner(), inverse, "fixed", depth=DepthSettings(0.1, 50.0, 0.02), **fixed).metres.numpy()
    assert np.isposinf(metres[:115]).mean() > 0.99 and np.allclose(metres[125:], 2.0)


def test_points_far_outside_of_a_lens_do_not_fold_back_into_the_image():
    lens = Camera(640, 480, 400.0, 400.0, 320.0, 240.0, "plumb_bob", (-0.28, 0.0, 0.0, 0.0, 0.0))
    angles = np.radians(np.linspace(-80, 80, 321))
    pixels = lens.project(np.stack([np.sin(angles), np.zeros_like(angles), np.cos(angles)], 1) * 3)
    seen = np.isfinite(pixels).all(1) & (pixels >= 0).all(1) & (pixels < (640, 480)).all(1)
    assert np.abs(np.degrees(angles[seen])).max() < 50 and seen.sum() > 100
    assert (np.diff(pixels[seen, 0]) > 0).all()


def test_nothing_from_elsewhere_is_a_problem_in_words():
    inverse = np.linspace(1, 5, 240 * 320).reshape(240, 320)
    assert refine(Refiner(), inverse, "ground").scale.problem == "no transform"
    assert refine(Refiner(), inverse, "sparse", Side(sensor=Transform.identity())).scale.problem == "no points"


def test_an_obstacle_that_fills_the_view_does_not_take_the_scale_of_the_ground():
    """Driving at a wall until it hides the ground: held, and right."""
    mount = Transform.from_rpy(0, 0, 0.5, 0, 0.1, 0) @ Transform.from_rpy(0, 0, 0, -np.pi / 2, 0, -np.pi / 2)
    v, u = np.mgrid[0:240, 0:320]
    rays = np.stack([(u - 155) / 300, (v - 125) / 310, np.ones_like(u)], -1) @ mount.rotation.T
    refiner, stamp = Refiner(), SECOND
    settings = RefineSettings(DepthSettings(0.1, 50.0), ScaleSettings("ground"))
    for ahead in (2.0, 1.5, 1.2, 1.0, 0.8, 0.6, 0.4):
        true = np.maximum(-rays[..., 2] / 0.5, rays[..., 0] / ahead)
        stamp += SECOND // 5
        refined = refiner.refine(Frame(RGB, CAMERA, None, stamp), said(1.25 / true, "metric"), settings, Side(mount=mount))
        assert refined.metres is not None, (ahead, refined.scale.problem)
        assert abs(np.median(refined.metres.numpy() * true) - 1) < 0.02
