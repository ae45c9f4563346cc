# SPDX-License-Identifier: Apache-2.0
"""Preprocessing by the published rule, predictions at the image's size, and clear errors."""

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from published import random_state_dict

from depth_anything_ros.inference import DepthEstimator, ImageError, InferenceError, network_size, preprocess
from depth_anything_ros.inference.preprocessing import resize_on_device
from depth_anything_ros.models import MODELS


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "file.pth"
    torch.save(random_state_dict("vits"), path)
    return path


def picture(width, height, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(
    "image, expected",
    [  # measured with the reference code (DepthAnything/Depth-Anything-V2, util/transform.py)
        ((640, 480), (686, 518)),
        ((1280, 720), (924, 518)),
        ((1920, 1080), (924, 518)),
        ((640, 360), (924, 518)),
        ((320, 240), (686, 518)),
        ((752, 480), (812, 518)),
        ((480, 640), (518, 686)),
        ((1242, 375), (1722, 518)),
        ((518, 518), (518, 518)),
    ],
)
def test_sizes_are_those_of_the_reference(image, expected):
    assert network_size(*image, 518, 14) == expected


@pytest.mark.parametrize("width, height", [(640, 480), (333, 217), (518, 518)])
def test_pixels_are_those_of_a_plain_opencv_computation(width, height):
    rgb = picture(width, height)
    size = network_size(width, height, 518, 14)
    plain = cv2.resize(rgb / 255.0, size, interpolation=cv2.INTER_CUBIC)  # float64, as the reference does it
    plain = (plain - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    ours = preprocess([rgb], size, torch.device("cpu"), MODELS["v2"])
    assert ours.dtype == torch.float32 and ours.is_contiguous() and ours.shape == (1, 3, size[1], size[0])
    np.testing.assert_allclose(ours[0].numpy(), plain.transpose(2, 0, 1), atol=5e-4)  # 0.03 grey levels
    elsewhere = resize_on_device(torch.from_numpy(rgb).permute(2, 0, 1), size)
    np.testing.assert_allclose(
        elsewhere.numpy() / 255, cv2.resize(rgb / 255.0, size, interpolation=cv2.INTER_CUBIC).transpose(2, 0, 1), atol=2e-4
    )


@pytest.mark.parametrize("width, height", [(0, 480), (640, 0), (5000, 10), (10, 5000)])
def test_impossible_images_are_refused(width, height):
    with pytest.raises(ImageError):
        network_size(width, height, 518, 14)


@pytest.mark.parametrize("model, align_corners", [("v1", False), ("v2", True)])
def test_prediction_is_the_network_and_the_references_way_back(checkpoint, model, align_corners):
    """V2's infer_image enlarges with align_corners=True, V1's run.py with False."""
    estimator = DepthEstimator.create(model, "vits", str(checkpoint), input_size=112, device="cpu", backend="torch")
    rgb = picture(160, 120)
    prediction = estimator.predict(rgb)
    size = network_size(160, 120, 112, 14)
    with torch.inference_mode():
        direct = estimator.network(preprocess([rgb], size, torch.device("cpu"), MODELS["v2"]))
    assert prediction.kind == "relative"
    assert prediction.values.dtype == np.float32 and prediction.values.shape == (size[1], size[0])
    np.testing.assert_allclose(prediction.values, direct[0].numpy(), atol=1e-6)
    enlarged = F.interpolate(direct[None], size=(120, 160), mode="bilinear", align_corners=align_corners)[0, 0]
    assert prediction.at_image_size().shape == (120, 160)
    np.testing.assert_allclose(prediction.at_image_size(), enlarged.numpy(), atol=1e-5)


def test_metric_prediction_says_so_and_stays_below_its_maximum(checkpoint):
    estimator = DepthEstimator.create(
        "v2_metric_indoor", "vits", str(checkpoint), input_size=112, device="cpu", backend="torch"
    )
    prediction = estimator.predict(picture(160, 120))
    assert prediction.kind == "metric"
    assert prediction.values.min() > 0 and prediction.values.max() < 20


def test_a_batch_equals_its_images_one_by_one(checkpoint):
    estimator = DepthEstimator.create("v2", "vits", str(checkpoint), input_size=112, device="cpu", backend="torch")
    images = [picture(160, 120, seed) for seed in range(3)]
    for rgb, prediction in zip(images, estimator.predict_batch(images)):
        np.testing.assert_allclose(prediction.values, estimator.predict(rgb).values, atol=1e-4)
    with pytest.raises(ImageError, match="one network_size"):
        estimator.predict_batch([images[0], picture(120, 160)])


@pytest.mark.parametrize("bad", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_arrays_that_are_no_rgb_image(checkpoint, bad):
    with pytest.raises(ImageError, match=r"expected \(H, W, 3\) uint8 RGB"):
        DepthEstimator.create("v2", "vits", str(checkpoint), 112, "cpu").predict(bad)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"input_size": 500}, "500 is not a multiple of 14; the nearest are 490 and 504"),
        ({"device": "abacus"}, "unknown device 'abacus'"),
        ({"device": "cuda:63"}, "not available"),
        ({"precision": "int8"}, "unknown precision 'int8'"),
    ],
)
def test_settings_that_do_not_exist_here(checkpoint, options, message):
    with pytest.raises(ValueError, match=message):
        DepthEstimator.create("v2", "vits", str(checkpoint), **({"device": "cpu"} | options))


def test_a_network_that_gives_nan_is_an_error_not_a_depth(tmp_path):
    state = random_state_dict("vits")
    state["depth_head.scratch.output_conv2.2.bias"][:] = float("nan")
    torch.save(state, tmp_path / "file.pth")
    estimator = DepthEstimator.create("v2", "vits", str(tmp_path / "file.pth"), 112, "cpu", backend="torch")
    with pytest.raises(InferenceError, match="NaN or Inf"):
        estimator.predict(picture(160, 120))


def test_published_corner_values():
    """Row 0 of the transformers conversion script's own assertions; another stack, hence 2 %. Runs where the weights are."""
    import os
    from pathlib import Path

    folder, image = os.environ.get("DEPTH_ANYTHING_WEIGHTS"), os.environ.get("COCO_000000039769")
    if not folder or not image:
        pytest.skip("set DEPTH_ANYTHING_WEIGHTS to a folder of published .pth files and COCO_000000039769 to that image")
    rows = {
        ("v1", "vits", "depth_anything_vits14.pth"): (8.8204, 8.6468, 8.6195),
        ("v1", "vitb", "depth_anything_vitb14.pth"): (26.3997, 26.3004, 26.3928),
        ("v1", "vitl", "depth_anything_vitl14.pth"): (87.9968, 87.7493, 88.2704),
        ("v2", "vits", "depth_anything_v2_vits.pth"): (2.6751, 2.6211, 2.6571),
        ("v2", "vitb", "depth_anything_v2_vitb.pth"): (4.3576, 4.3723, 4.3908),
        ("v2", "vitl", "depth_anything_v2_vitl.pth"): (162.2751, 161.8504, 162.8788),
        ("v2_metric_indoor", "vits", "depth_anything_v2_metric_hypersim_vits.pth"): (1.3349, 1.2946, 1.2801),
        ("v2_metric_indoor", "vitb", "depth_anything_v2_metric_hypersim_vitb.pth"): (1.4601, 1.3824, 1.4904),
        ("v2_metric_indoor", "vitl", "depth_anything_v2_metric_hypersim_vitl.pth"): (1.5040, 1.5019, 1.5218),
        ("v2_metric_outdoor", "vits", "depth_anything_v2_metric_vkitti_vits.pth"): (9.5804, 8.0339, 7.7386),
        ("v2_metric_outdoor", "vitb", "depth_anything_v2_metric_vkitti_vitb.pth"): (10.2916, 9.0933, 8.8622),
        ("v2_metric_outdoor", "vitl", "depth_anything_v2_metric_vkitti_vitl.pth"): (14.0137, 13.3627, 13.1080),
    }
    rgb = cv2.cvtColor(cv2.imread(image), cv2.COLOR_BGR2RGB)
    found = {key: row for key, row in rows.items() if (Path(folder) / key[2]).is_file()}
    assert found, f"no published file in {folder}"
    for (model, encoder, file), row in found.items():
        estimator = DepthEstimator.create(
            model, encoder, str(Path(folder) / file), device="cpu", precision="fp32", allow_noncommercial=True, backend="torch"
        )
        np.testing.assert_allclose(estimator.predict(rgb).values[0, :3], row, rtol=0.02)
