# SPDX-License-Identifier: Apache-2.0
"""Filters, colour-guided edges, confidence, exposure: each against numbers of the test's own."""

import cv2
import numpy as np
import pytest
import torch

from depth_anything_ros.demo.families import HELD_OUT_SEED
from depth_anything_ros.demo.sources import photographed_scene
from depth_anything_ros.geometry import enlarge, smooth
from depth_anything_ros.inference import DepthEstimator, normalize_exposure
from depth_anything_ros.pipeline import DepthSettings, Frame, Refiner, RefineSettings


@pytest.fixture(scope="module")
def estimator():
    return DepthEstimator.create("demo", device="cpu", backend="torch")


@pytest.fixture(scope="module")
def shot():
    return photographed_scene(HELD_OUT_SEED + 3, "room", 320, 240)


def test_the_median_takes_specks_and_the_bilateral_filter_noise_and_both_keep_edges():
    random = np.random.default_rng(0)
    clean = np.where(np.arange(64) < 32, 1.0, 0.25) * np.ones((48, 64))
    specks = clean.copy()
    specks[random.integers(0, 48, 30), random.integers(0, 64, 30)] = 3.0
    np.testing.assert_array_equal(smooth(torch.from_numpy(specks).float(), 3, 0.0).numpy()[:, 8:24], clean[:, 8:24])
    noisy = (clean * (1 + 0.01 * random.standard_normal(clean.shape))).astype(np.float32)
    out = smooth(torch.from_numpy(noisy), 0, 2.0).numpy()
    flat = np.r_[4:28, 36:60]
    assert np.abs(out - clean)[4:-4, flat].std() < 0.5 * np.abs(noisy - clean)[4:-4, flat].std()
    assert np.abs(out - clean)[:, 30:34].max() < 0.05  # the edge stands
    same = torch.from_numpy(noisy)
    assert smooth(same, 0, 0.0) is same


def test_colour_says_where_an_edge_runs():
    """A slanted edge that the grid blurs and the image shows sharply."""
    v, u = np.mgrid[0:240, 0:320]
    front = u + 0.4 * v < 200
    rgb = np.where(front[..., None], (200, 60, 40), (50, 90, 160)).astype(np.uint8)
    inverse = cv2.resize(np.where(front, 1 / 1.5, 1 / 4.0).astype(np.float32), (80, 60), interpolation=cv2.INTER_AREA)
    depth = torch.from_numpy(1 / cv2.GaussianBlur(inverse, (0, 0), 1.0))
    truth = np.where(front, 1.5, 4.0)

    def right(guide):
        upsampling = "bilinear" if guide is None else "guided"
        return (np.abs(enlarge(depth, (240, 320), False, 0.02, upsampling, guide).numpy() / truth - 1) < 0.05).mean()

    assert right(rgb) > 0.99 > 0.97 > right(None)
    assert 1 - right(np.roll(rgb, 6, 1)) > 4 * (1 - right(rgb))  # the negative control: colours of elsewhere


@pytest.mark.parametrize("align_corners", [False, True])
def test_nearest_takes_the_networks_own_pixels(align_corners):
    depth = torch.from_numpy(np.random.default_rng(0).uniform(1, 2, (6, 8)).astype(np.float32))
    out = enlarge(depth, (24, 40), align_corners, 0.0, "nearest").numpy()
    places = [
        np.arange(n) * (m - 1) / (n - 1) if align_corners else (np.arange(n) + 0.5) * m / n - 0.5 for n, m in ((24, 6), (40, 8))
    ]
    rows, columns = (np.clip(np.rint(p), 0, m - 1).astype(int) for p, m in zip(places, (6, 8)))
    np.testing.assert_array_equal(out, depth.numpy()[rows][:, columns])


def test_confidence_is_the_agreement_with_the_mirrored_image(estimator, shot):
    prediction = estimator.predict_batch([shot.rgb], confidence=True)[0]
    mirrored = estimator.predict(np.ascontiguousarray(shot.rgb[:, ::-1])).values[:, ::-1]
    expected = np.minimum(prediction.values, mirrored) / np.maximum(prediction.values, mirrored)
    np.testing.assert_allclose(prediction.confidence.numpy(), expected, atol=2e-3)
    np.testing.assert_allclose(prediction.values, estimator.predict(shot.rgb).values, rtol=1e-4)
    assert 0.3 < expected.min() < 0.95 < expected.max() <= 1
    assert estimator.predict(shot.rgb).confidence is None
    turned = prediction.turned(90)
    np.testing.assert_array_equal(turned.confidence.numpy(), np.rot90(prediction.confidence.numpy()))

    refined = Refiner().refine(Frame(shot.rgb), prediction, RefineSettings(DepthSettings(0.05, 20.0, min_confidence=0.95)))
    sure = prediction.resized(prediction.confidence).numpy() >= 0.95
    np.testing.assert_array_equal(np.isfinite(refined.metres.numpy()), sure)


def test_pixels_of_little_confidence_are_worse(estimator):
    agree, error = [], []
    for seed, family in enumerate(("room", "corridor", "hall", "street")):
        seen = photographed_scene(HELD_OUT_SEED + 6000 + seed, family, 320, 240)
        prediction = estimator.predict_batch([seen.rgb], confidence=True)[0]
        near = seen.depth < 20
        agree.append(prediction.resized(prediction.confidence).numpy()[near])
        error.append(np.abs(prediction.at_image_size() / seen.depth - 1)[near])
    agree, error = np.concatenate(agree), np.concatenate(error)
    assert error[agree < 0.9].mean() > 1.5 * error[agree >= 0.9].mean()


def test_only_dark_images_are_brightened(estimator, shot):
    dark = (shot.rgb * 0.15).astype(np.uint8)
    assert normalize_exposure(shot.rgb) is shot.rgb
    assert abs(normalize_exposure(dark).mean() / 255 - 0.42) < 0.1
    black = np.zeros((24, 32, 3), np.uint8)
    np.testing.assert_array_equal(normalize_exposure(black), black)

    def off(rgb):
        return np.abs(estimator.predict(rgb).at_image_size() / shot.depth - 1).mean()

    assert off(normalize_exposure(dark)) < 0.7 * off(dark)
