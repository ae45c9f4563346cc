# SPDX-License-Identifier: Apache-2.0
"""The focal length on its way: from camera_info to what the network sees, and back from the network's own estimate."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sensor_msgs.msg import CameraInfo

from depth_anything_ros.inference import Features, Prediction
from depth_anything_ros.messages.camera_info import info_of_grid
from depth_anything_ros.messages.cdr import ImageHeader
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


def test_what_was_calibrated_stays():
    image = prepared(calibration(300.0, 200.0))
    assert image.with_estimate(Prediction(torch.ones(3, 4), "metric", (240, 320), False, focal=(300.0, 200.0))) is image


def test_features_are_turned_back_with_their_grid():
    tokens = torch.arange(6.0).reshape(3, 2, 1)  # as the network saw them: 3 rows, 2 columns
    seen = Prediction(torch.ones(48, 32), "metric", (48, 32), False, features=Features(tokens, None, (32, 48)))
    back = seen.turned(90).features  # it was turned clockwise; back is counter-clockwise
    assert back.tokens[..., 0].tolist() == [[1, 3, 5], [0, 2, 4]] and back.input_size == (48, 32)


def test_the_grids_camera_info_describes_every_cell():
    """By image_geometry: a point's pixel in the binned image is its pixel in the full one, divided by the binning."""
    info = info_of_grid(HEADER_OF_ROS, calibration(300.0, 200.0), (640, 480), (40, 30))
    assert (info.width, info.height, info.binning_x, info.binning_y) == (640, 480, 16, 16)
    assert info.k[0] == 600 and info.k[4] == 400 and info.p[0] == 600 and info.p[5] == 400
    assert info.k[2] == info.p[2] == (150 + 0.5) * 2 - 0.5 and info.k[5] == info.p[6] == (110 + 0.5) * 2 - 0.5
    assert not any(info_of_grid(HEADER_OF_ROS, None, (640, 480), (40, 30)).k)


HEADER_OF_ROS = calibration(1.0, 1.0).header
