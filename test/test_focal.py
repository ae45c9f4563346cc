# SPDX-License-Identifier: Apache-2.0
"""The focal length on its way: from camera_info to what the network sees, and back from the network's own estimate."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from sensor_msgs.msg import CameraInfo
from tiny_depth_node import TINY, tiny, write_weights

from depth_anything_ros.geometry import CameraError
from depth_anything_ros.inference import DepthEstimator, Features, Prediction
from depth_anything_ros.messages.camera_info import info_of_grid
from depth_anything_ros.messages.cdr import ImageHeader
from depth_anything_ros.models import ENCODERS, MODELS
from depth_anything_ros.stream.focal import check_focal
from depth_anything_ros.stream.image import prepare_image
from depth_anything_ros.stream.settings import CameraSettings

SETTINGS = CameraSettings("", "", "", "auto", "", "auto", 0, 0, 0.0)
HEADER = ImageHeader(sec=3, nanosec=5, frame_id="optical")


def calibration(fx, fy):
    info = CameraInfo(width=320, height=240, distortion_model="plumb_bob", d=[0.0] * 5)
    info.header.frame_id = "optical"
    info.k = [fx, 0.0, 150.0, 0.0, fy, 110.0, 0.0, 0.0, 1.0]
    info.p = [fx, 0.0, 150.0, 0.0, 0.0, fy, 110.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    return info


def prepared(info, **changes):
    rgb = np.zeros((240, 320, 3), np.uint8)
    return prepare_image(HEADER, rgb, info, replace(SETTINGS, **changes), "/camera/image", "/camera/camera_info")


@pytest.mark.parametrize("rotation, expected", [(0, (300.0, 200.0)), (90, (200.0, 300.0)), (180, (300.0, 200.0))])
def test_a_turned_image_has_its_focal_lengths_turned(rotation, expected):
    image = prepared(calibration(300.0, 200.0), rotation=rotation)
    assert image.focal == expected
    assert image.upright.shape[:2] == ((320, 240) if rotation == 90 else (240, 320))


def test_without_a_calibration_there_is_none_but_an_assumed_one_counts():
    assert prepared(None).focal is None
    assert prepared(None, fov_deg=90.0).focal == pytest.approx((160.0, 160.0))


def test_an_estimate_becomes_the_camera_of_the_outputs_and_says_so():
    """The network saw the image turned by 90 degrees, 240 wide, with 50 degrees across."""
    focal = 120 / np.tan(np.radians(25))
    seen = Prediction(torch.ones(4, 3), "metric", (320, 240), False, focal=(focal, focal), estimated=True)
    image = prepared(None, rotation=90).with_estimate(seen.turned(90))
    camera = image.frame.camera
    assert (camera.width, camera.height, camera.cx, camera.cy) == (320, 240, 159.5, 119.5)
    assert camera.fx == camera.fy == pytest.approx(focal)
    assert image.info.k[0] == pytest.approx(focal) and image.info.header.frame_id == "optical"
    fov = 2 * np.degrees(np.arctan(160 / focal))  # of the image as it came
    assert f"{fov:.1f} degrees is the network's estimate" in image.calibration


@pytest.mark.parametrize("model, refused", [("depth_pro", True), ("da3_metric", True), ("v2_metric_indoor", False)])
def test_a_view_that_is_still_distorted_gives_no_metres_by_a_focal_length(model, refused):
    """W / f belongs to a pinhole; at a wide lens's rim it is wrong by a multiple."""
    info = calibration(300.0, 200.0)
    info.d[0] = -0.3
    with pytest.raises(CameraError, match="rectify") if refused else contextlib.nullcontext():
        check_focal(MODELS[model], prepared(info, rectify="rays"))
    check_focal(MODELS[model], prepared(info, rectify="true"))


@pytest.mark.parametrize("model, refused", [("depth_pro", True), ("da3_metric", False)])
def test_a_calibration_of_other_images_is_not_replaced_by_an_estimate(model, refused):
    info = calibration(300.0, 200.0)
    info.width = 640
    with pytest.raises(CameraError, match="640x240") if refused else contextlib.nullcontext():
        check_focal(MODELS[model], prepared(info))
    check_focal(MODELS[model], prepared(None))  # nobody has calibrated this camera


@pytest.mark.parametrize("degrees, metres", [(60.0, True), (0.0, False), (-20.0, False), (179.9, False), (float("nan"), False)])
def test_an_impossible_field_of_view_makes_no_metres(tmp_path, monkeypatch, degrees, metres):
    monkeypatch.setitem(MODELS, "depth_pro", tiny("depth_pro"))
    monkeypatch.setitem(ENCODERS, *TINY["depth_pro"][:2])
    weights = write_weights("depth_pro", tmp_path)
    state = torch.load(weights)
    state["fov.head.4.weight"].zero_()
    state["fov.head.4.bias"].fill_(degrees)
    torch.save(state, weights)
    estimator = DepthEstimator.create("depth_pro", "", str(weights), device="cpu", backend="torch", allow_noncommercial=True)
    rgb = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    by_calibration, alone = estimator.predict_batch([rgb, rgb], [(300.0, 300.0), None])
    assert by_calibration.kind == "metric" and by_calibration.focal == (300.0, 300.0)
    assert alone.kind == ("metric" if metres else "relative") and alone.estimated == metres
    if metres:
        assert alone.focal[0] == pytest.approx(160 / np.tan(np.radians(30)), rel=1e-4)
        np.testing.assert_allclose(alone.values / by_calibration.values, alone.focal[0] / 300, rtol=1e-3)
    assert len({by_calibration.network, alone.network}) == 2


def test_what_was_calibrated_stays():
    image = prepared(calibration(300.0, 200.0))
    assert image.with_estimate(Prediction(torch.ones(3, 4), "metric", (240, 320), False, focal=(300.0, 200.0))) is image


def test_features_are_turned_back_with_their_grid():
    tokens = torch.arange(6.0).reshape(3, 2, 1)  # as the network saw them: 3 rows, 2 columns
    seen = Prediction(torch.ones(48, 32), "metric", (48, 32), False, features=Features(tokens, None, (32, 48)))
    back = seen.turned(90).features  # it was turned clockwise; back is counter-clockwise
    assert back.tokens[..., 0].tolist() == [[1, 3, 5], [0, 2, 4]] and back.input_size == (48, 32)


def test_the_grids_camera_info_describes_every_cell():
    """By image_geometry a binned camera has f / binning and c / binning: there, each cell has its centre's ray."""
    info = info_of_grid(HEADER_OF_ROS, calibration(300.0, 200.0), (640, 480), (40, 30))
    assert (info.width, info.height, info.binning_x, info.binning_y) == (640, 480, 16, 16)
    for column, row in ((0, 0), (7, 3), (39, 29)):
        u, v = 8 * column + 3.5, 8 * row + 3.5  # pixels of the 320 x 240 image: the middle of 8 x 8, centres at whole numbers
        for (fx, cx), (fy, cy) in (
            ((info.k[0], info.k[2]), (info.k[4], info.k[5])),
            ((info.p[0], info.p[2]), (info.p[5], info.p[6])),
        ):
            assert (column - cx / 16) / (fx / 16) == pytest.approx((u - 150) / 300)
            assert (row - cy / 16) / (fy / 16) == pytest.approx((v - 110) / 200)
    assert not any(info_of_grid(HEADER_OF_ROS, None, (640, 480), (40, 30)).k)


HEADER_OF_ROS = calibration(1.0, 1.0).header
