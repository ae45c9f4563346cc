# SPDX-License-Identifier: Apache-2.0
"""Rectified and turned views against an exact scene seen through the lens itself, and against OpenCV."""

import math

import cv2
import numpy as np
import pytest
import torch
from sensor_msgs.msg import CameraInfo

from depth_anything_ros.demo import raycast
from depth_anything_ros.demo.families import HELD_OUT_SEED, random_scene
from depth_anything_ros.demo.scenes import View as SceneView
from depth_anything_ros.geometry import Camera, CameraError, Rectification, ideal_camera, rotate, unproject
from depth_anything_ros.inference.prediction import Prediction
from depth_anything_ros.messages.camera_info import view_of
from depth_anything_ros.pipeline import DepthSettings, Frame, Refiner, RefineSettings

WIDTH, HEIGHT = 320, 240
FX, FY, CX, CY = 210.0, 212.0, 158.0, 121.0
LENSES = {  # go2's front camera; a rational and a fisheye lens of the usual strength
    "plumb_bob": (-0.3546, 0.1265, 0.0009, -0.0006, -0.0203),
    "rational_polynomial": (0.9, 0.35, 0.0002, -0.0003, 0.03, 1.1, 0.55, 0.12),
    "equidistant": (-0.02, 0.006, -0.004, 0.0008),
}
K = np.array([[FX, 0, CX], [0, FY, CY], [0, 0, 1]])


def lens_rays(model):
    """x / z and y / z (H, W) of every pixel, by OpenCV's own undistortion run to convergence."""
    u, v = np.meshgrid(np.arange(WIDTH, dtype=np.float64), np.arange(HEIGHT, dtype=np.float64))
    pixels, d = np.stack([u, v], -1).reshape(-1, 1, 2), np.array(LENSES[model])
    if model == "equidistant":
        points = cv2.fisheye.undistortPoints(pixels, K, d)
    elif hasattr(cv2, "undistortPointsIter"):
        points = cv2.undistortPointsIter(pixels, K, d, None, None, (3, 100, 1e-10))
    else:
        points = cv2.undistortPoints(pixels, K, d, criteria=(3, 100, 1e-10))
    return points.reshape(HEIGHT, WIDTH, 2)


def see(monkeypatch, scene, view, points):
    """Image (H, W, 3) uint8 and depth (H, W) of a scene through rays (x / z, y / z) of any camera."""
    height, width = points.shape[:2]

    def rays(view, *size):
        x, y = (torch.from_numpy(points[..., i].astype(np.float32)).reshape(1, -1) for i in (0, 1))
        cp, sp = torch.cos(view.pitch)[:, None], torch.sin(view.pitch)[:, None]
        cy, sy = torch.cos(view.yaw)[:, None], torch.sin(view.yaw)[:, None]
        forward, up = cp - y * sp, -sp - y * cp
        direction = torch.stack([forward * cy + x * sy, forward * sy - x * cy, up], -1)
        return view.position[:, None], direction

    with monkeypatch.context() as patched:
        patched.setattr(raycast, "rays", rays)
        seen = raycast.render(scene, view, width, height)
    return (seen.rgb[0].numpy() * 255).astype(np.uint8), seen.depth[0].numpy()


def pinhole_rays(camera):
    u, v = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    return np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy], -1)


@pytest.mark.parametrize("model", LENSES)
def test_the_rectified_view_is_what_an_ideal_camera_would_see(monkeypatch, model):
    scene, view = random_scene(HELD_OUT_SEED + 11, "room")
    distorted, _ = see(monkeypatch, scene, view, lens_rays(model))
    source = Camera(WIDTH, HEIGHT, FX, FY, CX, CY, model, LENSES[model])
    target = Camera(WIDTH, HEIGHT, 180.0, 181.0, 161.0, 118.0)
    ideal, _ = see(monkeypatch, scene, view, pinhole_rays(target))
    rectification = Rectification(source, target)
    covered = rectification.covered()
    assert 0.6 < covered.mean() <= 1

    def error(image):
        return np.abs(image.astype(float) - ideal)[covered].mean()

    right = error(rectification.apply(distorted))
    assert right < 4  # of 255: what resampling costs
    assert error(distorted) > 3 * right
    opposite = tuple(-value for value in LENSES[model])
    wrong = error(Rectification(Camera(WIDTH, HEIGHT, FX, FY, CX, CY, model, opposite), target).apply(distorted))
    assert wrong > 1.3 * right  # the negative control


@pytest.mark.parametrize("model", LENSES)
def test_walls_are_flat_with_rectification_and_with_rays_and_bent_with_neither(monkeypatch, model):
    """A wall 5 m ahead, exact depth: distance of the cloud's points from the plane."""
    from test_scenes import looking_ahead, scene_of

    scene, view = scene_of((0, (6.0, 0.0, 5.0), (1.0, 20.0, 5.0))), looking_ahead(1.5)
    _, depth = see(monkeypatch, scene, view, lens_rays(model))
    assert np.abs(depth[:110] - 5).max() < 1e-3  # above the horizon there is only wall
    turned = SceneView(view.position, view.yaw + 0.4, view.pitch, view.focal)  # seen at an angle
    _, depth = see(monkeypatch, scene, turned, lens_rays(model))
    source = Camera(WIDTH, HEIGHT, FX, FY, CX, CY, model, LENSES[model])
    target = Camera(WIDTH, HEIGHT, 180.0, 181.0, 161.0, 118.0)
    _, ideal_depth = see(monkeypatch, scene, turned, pinhole_rays(target))

    def bend(depth, camera):
        points = unproject(torch.from_numpy(depth), camera.rays()).numpy().astype(np.float64)
        across = math.cos(0.4) * points[..., 2] + math.sin(0.4) * points[..., 0]  # x of the world
        straight = np.isfinite(across) & (points[..., 1] < 1.2) & (np.abs(points[..., 0]) < 3)
        return np.quantile(np.abs(across[straight] - 5), 0.95)

    assert bend(depth, source) < 0.01
    assert bend(ideal_depth, target) < 0.01
    assert bend(depth, Camera(WIDTH, HEIGHT, FX, FY, CX, CY)) > 0.05


@pytest.mark.parametrize("model", LENSES)
def test_the_largest_view_without_empty_corners(model):
    source = Camera(WIDTH, HEIGHT, FX, FY, CX, CY, model, LENSES[model])
    rectification = Rectification(source, ideal_camera(source))
    covered = rectification.covered()
    assert covered.mean() > 0.98
    assert not rectification.wide


def test_where_the_image_does_not_reach_there_is_no_depth():
    source = Camera(WIDTH, HEIGHT, FX, FY, CX, CY, "plumb_bob", LENSES["plumb_bob"])
    rectification = Rectification(source, Camera(WIDTH, HEIGHT, 90.0, 90.0, CX, CY))
    covered = rectification.covered()
    white = rectification.apply(np.full((HEIGHT, WIDTH, 3), 255, np.uint8))
    assert 0.2 < covered.mean() < 0.9
    assert (white[covered] > 250).all() and (white[~covered].min(-1) < 255).mean() > 0.99
    prediction = Prediction(torch.full((24, 32), 3.0), "metric", (HEIGHT, WIDTH), False)
    frame = Frame(np.zeros((HEIGHT, WIDTH, 3), np.uint8), None, rectification.coverage())
    depth = Refiner().refine(frame, prediction, RefineSettings(DepthSettings(0.1, 10))).metres
    assert torch.isnan(depth[torch.from_numpy(~covered)]).all() and (depth[torch.from_numpy(covered)] == 3).all()


def test_turned_images_and_predictions_of_them():
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    for degrees, code in ((90, cv2.ROTATE_90_CLOCKWISE), (180, cv2.ROTATE_180), (270, cv2.ROTATE_90_COUNTERCLOCKWISE)):
        turned = rotate(image, degrees)
        np.testing.assert_array_equal(turned, cv2.rotate(image, code))
        values = torch.from_numpy(turned[..., 0].astype(np.float32))
        back = Prediction(values, "metric", turned.shape[:2], False).turned(degrees)
        assert back.image_size == (4, 6)
        np.testing.assert_array_equal(back.at_image_size(), image[..., 0])
    assert rotate(image, 0) is image


def info(model="plumb_bob", d=LENSES["plumb_bob"], fp=180.0, **changes):
    message = CameraInfo(width=WIDTH, height=HEIGHT, distortion_model=model, d=list(d))
    message.k = K.reshape(-1).tolist()
    message.r = np.eye(3).reshape(-1).tolist()
    message.p = [fp, 0.0, 161.0, 0.0, 0.0, fp, 118.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    for name, value in changes.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    "message, rectify, topic_says, expected",
    [
        (info(), "auto", False, "view"),
        (info(), "auto", True, "P"),  # KITTI: rectified images with D
        (info(), "false", False, "P"),
        (info(), "rays", False, "rays"),
        (info(), "true", True, "view"),
        (info(d=[0.0] * 5), "auto", False, "K"),
        (info(d=[0.0] * 5), "true", False, "K"),
        (info("equidistant", LENSES["equidistant"], fp=80.0), "auto", False, "rays"),  # 127 degrees
        (info("equidistant", LENSES["equidistant"], fp=80.0), "true", False, "view"),
        (info(p=[0.0] * 12), "auto", False, "own view"),
    ],
)
def test_what_rectify_means(message, rectify, topic_says, expected):
    view = view_of(message, WIDTH, HEIGHT, rectify, topic_says)
    camera, out = view.camera, view.info
    assert (out.width, out.height) == (WIDTH, HEIGHT)
    assert (out.k[0], out.k[2], out.k[4], out.k[5]) == (camera.fx, camera.cx, camera.fy, camera.cy)
    if expected == "rays":
        assert view.rectification is None and camera.model == message.distortion_model and list(out.d) == list(message.d)
        return
    assert camera.model == "" and not any(out.d) and out.p[0] == out.k[0]
    assert (view.rectification is not None) == ("view" in expected)
    assert (camera.fx, camera.cx) == {"K": (FX, CX), "own view": (camera.fx, camera.cx)}.get(expected, (message.p[0], 161.0))


def test_crop_and_binning_go_into_the_view():
    """A full-resolution pixel u of the rectified image is ((u - x_offset) / binning) in the view: the ray stays."""
    message = info(width=1280, height=960, binning_x=2, binning_y=2)
    message.roi.x_offset, message.roi.y_offset, message.roi.width, message.roi.height = 100, 60, 800, 600
    view = view_of(message, 400, 300, "true")
    u, v = 700.0, 360.0
    assert ((u - 100) / 2 - view.camera.cx) / view.camera.fx == pytest.approx((u - 161) / 180)
    assert ((v - 60) / 2 - view.camera.cy) / view.camera.fy == pytest.approx((v - 118) / 180)
    source = view.rectification.source
    assert ((u - 100) / 2 - source.cx) / source.fx == pytest.approx((u - CX) / FX)


def test_a_turned_rectification_follows_r():
    """R turns the view: the pixel at the view's centre shows what lies in the direction R^T z."""
    angle = 0.1
    turn = np.array([[math.cos(angle), 0, -math.sin(angle)], [0, 1, 0], [math.sin(angle), 0, math.cos(angle)]])
    view = view_of(info(r=turn.reshape(-1).tolist()), WIDTH, HEIGHT, "true")
    direction = turn.T @ np.array([0, 0, 1.0])
    expected = cv2.projectPoints(direction[None], np.zeros(3), np.zeros(3), K, np.array(LENSES["plumb_bob"]))[0].reshape(2)
    ramp = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(WIDTH) // 2, np.arange(HEIGHT)[:, None]
    seen = view.rectification.apply(ramp)[118, 161].astype(float)
    assert seen[0] * 2 == pytest.approx(expected[0], abs=2) and seen[1] == pytest.approx(expected[1], abs=1.5)


def test_impossible_calibrations_are_refused():
    with pytest.raises(CameraError, match="640x480 images, but the image is 320x240"):
        view_of(info(width=640, height=480), WIDTH, HEIGHT)
