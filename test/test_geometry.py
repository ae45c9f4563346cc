# SPDX-License-Identifier: Apache-2.0
"""Cameras, clouds and colours against OpenCV, exact scenes and formulas written here."""

import cv2
import numpy as np
import pytest
import torch
from sensor_msgs.msg import CameraInfo

from depth_anything_ros.geometry import AdaptiveRange, Camera, CameraError, colorize, unproject
from depth_anything_ros.messages.camera_info import camera_from_info, view_of

DISTORTED = {  # go2's front camera; a rational and a fisheye lens of the usual strength
    "plumb_bob": (-0.3546, 0.1265, 0.0009, -0.0006, -0.0203),
    "rational_polynomial": (0.9, 0.35, 0.0002, -0.0003, 0.03, 1.1, 0.55, 0.12),
    "equidistant": (-0.02, 0.006, -0.004, 0.0008),
}


@pytest.mark.parametrize("model", DISTORTED)
def test_rays_of_a_distorted_camera_project_back_onto_their_pixels(model):
    """OpenCV's projection is the independent half: every finite ray has to land on the pixel that it came from."""
    camera = Camera(320, 240, 210.0, 212.0, 158.0, 121.0, model, DISTORTED[model])
    rays = camera.rays().numpy().astype(np.float64)
    finite = np.isfinite(rays).all(0)
    assert finite.mean() > 0.97
    points = np.stack([rays[0][finite], rays[1][finite], np.ones(finite.sum())], -1).reshape(-1, 1, 3)
    k = np.array([[210.0, 0, 158], [0, 212.0, 121], [0, 0, 1]])
    d = np.array(DISTORTED[model])
    project = cv2.fisheye.projectPoints if model == "equidistant" else cv2.projectPoints
    pixels = project(points, np.zeros(3), np.zeros(3), k, d)[0].reshape(-1, 2)
    v, u = np.nonzero(finite)
    assert np.abs(pixels - np.stack([u, v], -1)).max() < 0.12
    pinhole = Camera(320, 240, 210.0, 212.0, 158.0, 121.0).rays().numpy()
    assert np.nanmax(np.abs(pinhole - rays)) > 0.02  # ignoring the lens would be seen


def test_unprojection_is_the_pinhole_formula():
    camera = Camera(64, 48, 50.0, 51.0, 30.5, 22.25)
    depth = torch.rand(48, 64) * 5 + 0.1
    depth[3, 4] = torch.nan
    points = unproject(depth, camera.rays()).numpy()
    v, u = np.mgrid[0:48, 0:64]
    z = depth.numpy()
    expected = np.stack([(u - 30.5) / 50.0 * z, (v - 22.25) / 51.0 * z, z], -1)
    np.testing.assert_allclose(points, expected, atol=1e-5)
    assert np.isnan(points[3, 4]).all()


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"fx": 0.0, "fy": 0.0}, "all zero, which means uncalibrated"),
        ({"fx": 1.0, "fy": 1.0}, "placeholder"),
        ({"fx": float("nan")}, "NaN or Inf"),
        ({"cx": float("inf")}, "NaN or Inf"),
        ({"fx": -500.0}, "placeholder"),
        ({"model": "thin_prism", "distortion": (0.1,)}, "unknown distortion model 'thin_prism'"),
        ({"distortion": (0.1, 0.2, 0.0, 0.0)}, "without a distortion model"),
        ({"model": "plumb_bob", "distortion": (0.1, 0.2)}, "takes 4 or 5 coefficients, got 2"),
    ],
)
def test_impossible_calibrations_are_refused(changes, expected):
    good = {"width": 64, "height": 48, "fx": 50.0, "fy": 50.0, "cx": 32.0, "cy": 24.0}
    with pytest.raises(CameraError, match=expected):
        Camera(**(good | changes))


def info(width=640, height=480, **changes):
    message = CameraInfo(width=width, height=height, distortion_model="plumb_bob")
    message.k = [500.0, 0.0, 320.0, 0.0, 501.0, 240.0, 0.0, 0.0, 1.0]
    message.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    message.p = [400.0, 0.0, 310.0, 0.0, 0.0, 402.0, 230.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    message.d = [-0.3, 0.1, 0.0, 0.0, 0.0]
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def test_raw_images_are_described_by_k_and_d_and_rectified_ones_by_p():
    raw = camera_from_info(info(), 640, 480, rectified=False)
    assert (raw.fx, raw.fy, raw.cx, raw.cy) == (500, 501, 320, 240)
    assert raw.model == "plumb_bob" and raw.distortion == (-0.3, 0.1, 0, 0, 0)
    rectified = camera_from_info(info(), 640, 480, rectified=True)
    assert (rectified.fx, rectified.fy, rectified.cx, rectified.cy) == (400, 402, 310, 230)
    assert rectified.model == "" and rectified.distortion == ()


def test_crop_and_binning_are_taken_into_the_numbers():
    """A full-resolution pixel u is ((u - x_offset) / binning) in the image: the ray through it must stay the same."""
    message = info(width=1280, height=960, binning_x=2, binning_y=2)
    message.roi.x_offset, message.roi.y_offset, message.roi.width, message.roi.height = 100, 60, 800, 600
    camera = camera_from_info(message, 400, 300, rectified=False)
    u, v = 700.0, 360.0
    assert ((u - 100) / 2 - camera.cx) / camera.fx == pytest.approx((u - 320) / 500)
    assert ((v - 60) / 2 - camera.cy) / camera.fy == pytest.approx((v - 240) / 501)
    out = view_of(message, 400, 300, "rays").info
    assert (out.width, out.height, out.binning_x, out.roi.width) == (400, 300, 0, 0)
    assert (out.p[0], out.p[2], out.p[5], out.p[6]) == (200, 105, 201, 85)


def test_a_projection_that_is_no_calibration_is_not_passed_on():
    for p0 in (0.0, 1.0, float("nan")):
        message = info(p=[p0, 0.0, 310.0, 0.0, 0.0, p0, 230.0, 0.0, 0.0, 0.0, 1.0, 0.0])
        assert view_of(message, 640, 480, "rays").info.p[0] == 500  # K's


def test_camera_info_of_another_size_is_refused_with_both_sizes():
    with pytest.raises(CameraError, match="camera_info is for 1280x720 images, but the image is 640x480"):
        camera_from_info(info(1280, 720), 640, 480, rectified=False)


def test_colours_mean_the_same_in_every_frame_and_invalid_is_black():
    depth = torch.tensor([[0.0, 5.0, 10.0, 25.0, float("nan")]])
    picture = colorize(depth, 0.0, 10.0, "turbo")[0]
    ramp = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_TURBO)[:, 0]
    np.testing.assert_array_equal(picture[0], ramp[255])
    np.testing.assert_array_equal(picture[1], ramp[128])
    np.testing.assert_array_equal(picture[2], ramp[0])
    np.testing.assert_array_equal(picture[3], ramp[0])
    np.testing.assert_array_equal(picture[4], [0, 0, 0])
    ends = torch.tensor([[-torch.inf, -1e30, 1e30, torch.inf]])
    np.testing.assert_array_equal(colorize(ends, 0.0, 10.0, "turbo")[0], ramp[[255, 255, 0, 0]])
    np.testing.assert_array_equal(colorize(ends, 10.0, 0.0, "turbo")[0], ramp[[0, 0, 255, 255]])  # inverse depth


def test_the_range_of_relative_pictures_moves_slowly():
    adaptive = AdaptiveRange(rate=0.05)
    frame = torch.rand(400, 400, generator=torch.Generator().manual_seed(0)) * 10
    low, high = adaptive.update(frame)
    assert (low, high) == pytest.approx((0.2, 9.8), abs=0.1)
    flash = adaptive.update(frame * 10)
    assert flash[1] == pytest.approx(9.8 + 0.05 * (98 - 9.8), abs=0.5)  # a per-frame range would jump to 98
    adaptive.reset()
    assert adaptive.update(frame * 10)[1] == pytest.approx(98, abs=1)
