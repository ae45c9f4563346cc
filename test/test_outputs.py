# SPDX-License-Identifier: Apache-2.0
"""Clouds, ground, obstacles and scans of a scene whose every point the test knows; images by their plugin's formula."""

import struct

import cv2
import numpy as np
import pytest
import torch
from rclpy.serialization import serialize_message
from rosbags.typesys import Stores, get_typestore
from std_msgs.msg import Header

from depth_anything_ros.geometry import AdaptiveRange, Camera, CloudSettings, ScanSettings, Transform
from depth_anything_ros.inference import Prediction
from depth_anything_ros.messages.compressed import (
    compressed_color_message,
    compressed_depth_message,
    compressed_raw_depth_message,
)
from depth_anything_ros.messages.outgoing import cloud_message, scan_message
from depth_anything_ros.outputs import Outputs, OutputSettings
from depth_anything_ros.pipeline import Frame, Refined, Side

CAMERA = Camera(320, 240, 200.0, 205.0, 155.0, 118.0)
HEIGHT, BOX, WALL = 0.5, (2.0, 0.5, 0.3), 5.0  # of the camera; x, half width and height of a box's front; x of a wall
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))]


def mount(pitch=0.25, roll=0.05, yaw=0.0):
    """(base frame on the ground <- optical)."""
    return Transform.from_rpy(0, 0, HEIGHT, roll, pitch, yaw) @ Transform.from_rpy(0, 0, 0, -np.pi / 2, 0, -np.pi / 2)


def scene(pose, ground=True):
    """Depth (H, W) and points (H, W, 3) in the base frame, by intersecting rays with three planes."""
    v, u = np.mgrid[0:240, 0:320]
    rays = np.stack([(u - 155) / 200, (v - 118) / 205, np.ones_like(u)], -1) @ pose.rotation.T
    start = pose.translation
    with np.errstate(divide="ignore", invalid="ignore"):
        wall, box, floor = (WALL - start[0]) / rays[..., 0], (BOX[0] - start[0]) / rays[..., 0], -start[2] / rays[..., 2]
        hits = [np.where(wall > 0, wall, np.inf), np.where(floor > 0, floor, np.inf) if ground else np.full_like(wall, np.inf)]
        at = start + box[..., None] * rays
        on_box = (box > 0) & (np.abs(at[..., 1]) <= BOX[1]) & (at[..., 2] >= 0) & (at[..., 2] <= BOX[2])
        hits.append(np.where(on_box, box, np.inf))
    depth = np.min(hits, 0)
    return depth, start + depth[..., None] * rays


RGB = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)


def outputs(depth, side, device="cpu", camera=CAMERA, infinite=False, far=20.0, **settings):
    """`far` is what +Inf in depth is beyond."""
    metres = torch.from_numpy(depth.astype(np.float32)).to(device)
    prediction = Prediction(metres, "metric", depth.shape, False)
    groups = OutputSettings(
        cloud=CloudSettings(**settings.get("cloud", {})),
        scan=ScanSettings(**settings.get("scan", {})),
        infinite=infinite,
        far=far,
    )
    return Outputs(Frame(RGB, camera), prediction, Refined(metres, reach=far), side, groups, AdaptiveRange())


def read(packed):
    """Valid points (N, 3) and colours (N, 3) RGB of a packed cloud."""
    flat = packed.reshape(-1, 16)
    points = flat[:, :12].copy().view(np.float32)
    good = np.isfinite(points).all(1)
    return points[good], flat[good, 14:11:-1]


def test_stride_range_and_band_of_heights_leave_exactly_their_points():
    pose = mount()
    depth, points = scene(pose)
    cloud = outputs(depth, Side(mount=pose), cloud={"stride": 3, "max_range": 3.0, "min_height": 0.1, "max_height": 0.25}).cloud
    assert cloud.shape == (80, 107, 16)
    keep = (points[..., 2] >= 0.1) & (points[..., 2] <= 0.25) & (np.linalg.norm(points - pose.translation, axis=-1) <= 3.0)
    found, colours = read(cloud)
    np.testing.assert_allclose(pose.apply(found), points[::3, ::3][keep[::3, ::3]], atol=1e-4)
    np.testing.assert_array_equal(colours, RGB[::3, ::3][keep[::3, ::3]])
    assert len(found) > 100


@pytest.mark.parametrize("device", DEVICES)
def test_voxels_hold_the_mean_of_their_points(device):
    pose = mount()
    depth, _ = scene(pose)
    depth[:10] = np.nan
    found, colours = read(outputs(depth, Side(), device, cloud={"voxel": 0.2}).cloud)
    plain, plain_colours = read(outputs(depth, Side()).cloud)
    cells = {}
    for point, colour in zip(plain.astype(np.float64), plain_colours.astype(np.float64)):
        cells.setdefault(tuple(np.floor(point.astype(np.float32) / np.float32(0.2)).astype(int)), []).append((*point, *colour))
    assert len(found) == len(cells) < len(plain) / 10
    for point, colour in zip(found, colours):
        mean = np.mean(cells[tuple(np.floor(point / np.float32(0.2)).astype(int))], 0)
        np.testing.assert_allclose(point, mean[:3], atol=1e-3)
        np.testing.assert_allclose(colour, mean[3:], atol=0.6)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("error_deg", [0.0, 2.5])
def test_ground_and_obstacles_are_told_apart_even_if_the_pitch_is_somewhat_wrong(error_deg, device):
    true = mount()
    depth, points = scene(true)
    believed = Side(mount=mount(pitch=0.25 + np.radians(error_deg)))
    result = outputs(depth, believed, device, cloud={"ground_tolerance": 0.06})
    ground, obstacles = (true.apply(read(cloud)[0]) for cloud in (result.ground, result.obstacles))
    near = points[points[..., 0] < 4.0]
    assert (ground[ground[:, 0] < 4.0][:, 2] < 0.1).all() and (obstacles[obstacles[:, 0] < 4.0][:, 2] > 0.03).all()
    assert (ground[:, 0] < 4).sum() > 0.95 * (near[:, 2] < 0.02).sum() > 1000
    assert (obstacles[:, 0] < 4).sum() > 0.95 * (near[:, 2] > 0.1).sum() > 1000
    if error_deg:  # the negative control: by the transform alone, the floor would be an obstacle or a hole
        lifted = believed.mount.apply(np.stack([*(CAMERA.rays().numpy() * depth), depth], -1).reshape(-1, 3))
        floor = (points.reshape(-1, 3)[:, 2] < 0.01) & (points.reshape(-1, 3)[:, 0] < 4)
        assert (np.abs(lifted[floor, 2]) > 0.06).mean() > 0.1


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("yaw", [0.0, 3.0])
def test_the_scan_of_a_tilted_camera_is_that_of_a_level_laser(yaw, device):
    """A box 0.3 m high, 2 m ahead, in front of a wall; the scan's frame is turned and 0.4 m ahead of the base."""
    pose = mount()
    depth, _ = scene(pose)
    frame = Transform.from_rpy(0.4, 0.1, 0.2, 0, 0, -yaw)
    side = Side(mount=pose, scan=frame.inverse() @ pose)
    scan = outputs(depth, side, device, scan={"min_height": 0.05, "max_height": 1.2, "max_range": 8.0}).scan
    ranges = scan.ranges.cpu().numpy()
    angles = scan.angle_min + scan.increment * np.arange(len(ranges))
    direction = np.stack([np.cos(angles - yaw), np.sin(angles - yaw)], 1)  # in the base frame
    with np.errstate(divide="ignore"):
        expected, box = (WALL - 0.4) / direction[:, 0], (BOX[0] - 0.4) / direction[:, 0]
    beside = 0.1 + box * direction[:, 1]
    expected = np.where(np.abs(beside) <= BOX[1], box, expected)
    clear = (np.abs(np.abs(beside) - BOX[1]) > 0.05) & (np.abs(angles - yaw) < 0.6)
    assert clear.sum() > 100 and len(np.unique(np.round(expected[clear], 1))) > 5
    np.testing.assert_allclose(ranges[clear], expected[clear], rtol=0.02)
    level = Side(mount=Transform(mount(0, 0).rotation, pose.translation), scan=side.scan)
    wrong = outputs(depth, level, device, scan={"min_height": 0.05, "max_height": 1.2, "max_range": 8.0}).scan
    assert not np.allclose(wrong.ranges.cpu().numpy()[clear], expected[clear], rtol=0.02)  # tilt ignored: the negative control


def test_a_scan_says_what_is_free_and_what_is_not_known():
    pose = mount(0.1, 0.0)
    depth, _ = scene(pose)
    depth[:, :100] = np.nan  # nothing known of the left
    depth[:, 220:] = np.inf  # nothing within range on the right
    scan = outputs(depth, Side(mount=pose, scan=pose), scan={"max_range": 3.0}).scan
    ranges = scan.ranges.numpy()  # counterclockwise: the right comes first
    count = len(ranges)
    assert np.isnan(ranges[-count // 5 :]).all() and np.isposinf(ranges[6 : count // 5]).all()
    assert np.isfinite(ranges[count // 2]) and abs(ranges[count // 2] - 2.0) < 0.05


def test_a_scan_does_not_call_free_what_it_has_not_seen():
    pose = mount(0.1, 0.0)
    depth, points = scene(pose)
    side = Side(mount=pose, scan=pose)
    hidden = np.where((points[..., 2] > 0.03) & (points[..., 2] < 1.05), np.nan, depth)  # a gap in depth over the whole band
    ranges = outputs(hidden, side, scan={"max_range": 3.0}).scan.ranges.numpy()
    assert np.isfinite(hidden).mean() > 0.3 and np.isnan(ranges).mean() > 0.95
    near = outputs(depth, side, scan={"min_range": 2.5, "max_range": 8.0}).scan.ranges.numpy()
    middle = near[len(near) // 2 - 10 : len(near) // 2 + 10]
    assert np.isneginf(middle).all()  # the box at 2 m is nearer than the range begins: that is not free


def test_a_wall_beyond_what_depth_can_say_is_not_free():
    pose = mount(0.1, 0.0)
    depth, _ = scene(pose)
    ended = np.where(depth > 3.0, np.inf, depth)  # max_depth 3, a wall at 5 m, a scan of 10 m
    ranges = outputs(ended, Side(mount=pose, scan=pose), far=3.0, scan={"max_range": 10.0}).scan.ranges.numpy()
    assert not np.isposinf(ranges).any()
    ranges = outputs(ended, Side(mount=pose, scan=pose), far=3.0, scan={"max_range": 2.9}).scan.ranges.numpy()
    assert np.isposinf(ranges).mean() > 0.3


@pytest.mark.parametrize("aside, ahead", [(0.0, 0.3), (0.6, 0.0), (-0.4, 0.2)])
def test_what_the_camera_sees_near_is_in_the_scan_of_another_place(aside, ahead):
    """A wall 0.7 m before a camera that is not where the scan is: no obstacle that was seen is left out."""
    pose = Transform.from_rpy(ahead, aside, HEIGHT, 0, 0.1, 0) @ Transform.from_rpy(0, 0, 0, -np.pi / 2, 0, -np.pi / 2)
    v, u = np.mgrid[0:240, 0:320]
    rays = np.stack([(u - 155) / 200, (v - 118) / 205, np.ones_like(u)], -1) @ pose.rotation.T
    depth = 0.7 / rays[..., 0]
    points = pose.translation + depth[..., None] * rays
    band = (points[..., 2] >= 0.1) & (points[..., 2] <= 1.0)
    angles = np.arctan2(points[..., 1], points[..., 0])[band]
    scan = outputs(depth, Side(mount=pose, scan=pose)).scan
    ranges = scan.ranges.numpy()
    hit = scan.angle_min + scan.increment * np.flatnonzero(np.isfinite(ranges))
    assert abs(hit.min() - angles.min()) < 0.02 and abs(hit.max() - angles.max()) < 0.02
    assert not np.isposinf(ranges).any()
    far_away = Transform(np.eye(3), np.array([-20.0, 0.0, 0.0]))  # a scan frame from which nothing of this is within range
    ranges = outputs(depth, Side(mount=pose, scan=far_away.inverse() @ pose)).scan.ranges.numpy()
    assert np.isnan(ranges).all()


def test_a_camera_on_its_side_scans_as_wide_as_it_sees():
    widths = []
    for roll in (0.0, np.pi / 2, -np.pi / 2):
        pose = mount(0.1, roll)
        depth, _ = scene(pose)
        scan = outputs(depth, Side(mount=pose, scan=pose), scan={"max_range": 3.0}).scan
        hits = np.isfinite(scan.ranges.numpy())
        widths.append(np.degrees(scan.increment * hits.sum()))
    assert min(widths) > 20 and max(widths) < 2 * min(widths)


@pytest.mark.parametrize("step, ahead, pitch", [(0.25, 0.6, 0.25), (0.2, 0.6, 0.1), (0.25, 1.5, 0.25), (0.3, 2.5, 0.1)])
def test_a_step_is_an_obstacle_and_not_the_ground(step, ahead, pitch):
    """A platform as wide as the view: its top is level, its front stands `ahead`."""
    pose = mount(pitch, 0.0)
    v, u = np.mgrid[0:240, 0:320]
    rays = np.stack([(u - 155) / 200, (v - 118) / 205, np.ones_like(u)], -1) @ pose.rotation.T
    start = pose.translation
    with np.errstate(divide="ignore", invalid="ignore"):
        floor, top = (np.where(rays[..., 2] < 0, (z - start[2]) / rays[..., 2], np.inf) for z in (0.0, step))
        front, wall = ((x - start[0]) / rays[..., 0] for x in (ahead, WALL))
        top = np.where(start[0] + top * rays[..., 0] >= ahead, top, np.inf)
        rise = start[2] + front * rays[..., 2]
        front = np.where((rise >= 0) & (rise <= step), front, np.inf)
        floor = np.where(start[0] + floor * rays[..., 0] < ahead, floor, np.inf)
    depth = np.min([floor, top, front, wall], 0)
    result = outputs(depth, Side(mount=pose))
    on_top = (np.argmin([floor, top, front, wall], 0) == 1).sum()
    obstacles = pose.apply(read(result.obstacles)[0])
    assert on_top > 1000 and (np.abs(obstacles[:, 2] - step) < 0.01).sum() > 0.9 * on_top
    assert (pose.apply(read(result.ground)[0])[:, 2] < 0.11).all()  # the foot of its front may be ground


def test_clearing_points_are_where_nothing_is():
    pose = mount()
    depth, _ = scene(pose)
    depth[depth > 4.0], depth[:20] = np.inf, np.nan
    result = outputs(depth, Side(mount=pose), far=4.0)
    points, _ = read(result.clearing)
    assert len(points) == np.isinf(depth).sum() > 1000
    v, u = np.nonzero(np.isinf(depth))
    expected = np.stack([(u - 155) / 200, (v - 118) / 205, np.ones_like(u)], 1) * 4.0
    np.testing.assert_allclose(points, expected, atol=1e-4)
    assert np.isfinite(read(result.cloud)[0]).all() and len(read(result.cloud)[0]) == np.isfinite(depth).sum()
    assert np.isnan(result.depth[np.isinf(depth)]).all() and (result.depth_mm[np.isinf(depth)] == 0).all()
    assert np.isposinf(outputs(depth, Side(), infinite=True).depth[np.isinf(depth)]).all()


# -- compressed -------------------------------------------------------------------------------------------------


def decoded(message):
    """compressed_depth_image_transport, codec.cpp, decodeCompressedDepthImage: 32FC1 as PNG."""
    data = bytes(message.data)
    kind, a, b = struct.unpack("<iff", data[:12])
    codes = cv2.imdecode(np.frombuffer(data[12:], np.uint8), cv2.IMREAD_UNCHANGED)
    assert kind == 0 and codes.dtype == np.uint16
    with np.errstate(divide="ignore"):
        return np.where(codes > 0, np.float32(a) / (codes.astype(np.float32) - np.float32(b)), np.nan), a


@pytest.mark.parametrize("near, far", [(0.05, 20.0), (0.3, 80.0), (0.05, 3.0)])
def test_compressed_depth_is_read_back_within_a_step(near, far):
    depth = np.exp(np.random.default_rng(0).uniform(np.log(near), np.log(far), (120, 160))).astype(np.float32)
    depth[0, :2] = near, far
    depth[1, :4] = np.nan, 0.9 * near, 1.1 * far, np.inf
    found, a = decoded(compressed_depth_message(Header(frame_id="c"), depth, near, far))
    good = (depth >= np.float32(near)) & (depth <= np.float32(far))
    np.testing.assert_array_equal(np.isfinite(found), good)
    assert (np.abs(found - depth) <= 1.05 * depth**2 / a + 1e-6)[good].all()
    assert (found >= depth - 1e-4)[good].all()  # the plugin cuts codes off, too: never nearer than it was


@pytest.mark.parametrize(
    "distro, end", [("humble", "compressedDepth"), ("jazzy", "compressedDepth png"), (None, "compressedDepth png")]
)
def test_the_format_says_what_each_distro_says(monkeypatch, distro, end):
    monkeypatch.setenv("ROS_DISTRO", distro) if distro else monkeypatch.delenv("ROS_DISTRO", raising=False)
    depth = np.full((4, 4), 2.0, np.float32)
    assert compressed_depth_message(Header(), depth, 0.1, 10.0).format == f"32FC1; {end}"
    assert compressed_raw_depth_message(Header(), depth.astype(np.uint16)).format == f"16UC1; {end}"


def test_compressed_millimetres_are_exact_and_colour_is_close():
    mm = np.random.default_rng(0).integers(0, 65536, (60, 80)).astype(np.uint16)
    data = bytes(compressed_raw_depth_message(Header(), mm).data)
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(data[12:], np.uint8), cv2.IMREAD_UNCHANGED), mm)
    bgr = cv2.GaussianBlur(RGB, (0, 0), 5)
    message = compressed_color_message(Header(), bgr)
    assert message.format == "bgr8; jpeg compressed bgr8"
    back = cv2.imdecode(np.frombuffer(bytes(message.data), np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(back.astype(int) - bgr).mean() < 2


# -- an independent reader --------------------------------------------------------------------------------------


def by_rosbags(message, kind):
    return get_typestore(Stores.ROS2_JAZZY).deserialize_cdr(serialize_message(message), kind)


def test_rosbags_reads_the_messages_as_they_were_meant():
    pose = mount()
    depth, points = scene(pose)
    result = outputs(depth, Side(mount=pose, scan=pose), scan={"frame": "base_link"})
    header = Header(frame_id="camera_optical_frame")
    cloud = by_rosbags(cloud_message(header, result.obstacles), "sensor_msgs/msg/PointCloud2")
    assert (cloud.height, cloud.point_step, cloud.row_step) == (1, 16, 16 * cloud.width) and len(cloud.data) == cloud.row_step
    assert [(field.name, field.offset, field.datatype) for field in cloud.fields] == [
        ("x", 0, 7),
        ("y", 4, 7),
        ("z", 8, 7),
        ("rgb", 12, 7),
    ]
    np.testing.assert_array_equal(np.asarray(cloud.data).reshape(1, -1, 16), result.obstacles)
    scan = by_rosbags(scan_message(header, result.scan, result.settings.scan), "sensor_msgs/msg/LaserScan")
    assert scan.header.frame_id == "base_link" and len(scan.intensities) == 0
    np.testing.assert_array_equal(scan.ranges, result.scan.ranges.numpy())
    assert scan.angle_max == pytest.approx(scan.angle_min + scan.angle_increment * (len(scan.ranges) - 1), abs=1e-5)
    image = by_rosbags(compressed_depth_message(header, result.depth, 0.05, 20.0), "sensor_msgs/msg/CompressedImage")
    found, a = decoded(image)
    np.testing.assert_allclose(found, depth, atol=depth.max() ** 2 / a)
