# SPDX-License-Identifier: Apache-2.0
"""A relative network and a range sensor become metres, through the running node; and nothing else does."""

import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from bags import compressed_depth_of, image_of
from rclpy.duration import Duration
from ros import DepthProcess, bench, camera_info, depth_of, picture, stamp_of
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, LaserScan, PointCloud2, PointField
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from depth_anything_ros.geometry import Transform

POSE = "0.1 -0.2 0.05 1.5 0.1 1.5"  # of the sensor in the camera's optical frame
FRAME = "camera_color_optical_frame"
RGB = picture()


@pytest.fixture(scope="module")
def node(tmp_path_factory, vits):
    folder = tmp_path_factory.mktemp("scale")
    parameters = {
        "model": "v2",
        "checkpoint": vits,
        "input_size": 112,
        "device": "cpu",
        "edges__tolerance": 0.0,
        "scale__source": "sparse",
        "scale__topic": "/sensor/points",
        "scale__hold": 2.0,
        "scale__max_offset": 0.5,
        "scale__smoothing": 0.0,
        "scale__calibration_file": folder / "new" / "scale.yaml",
        "transforms": f'["{FRAME} lidar {POSE}", "{FRAME} level_lidar 0 0 0 1.5707963 -1.5707963 0"]',
    }
    with DepthProcess(folder, **parameters) as process:
        yield process


@pytest.fixture
def camera(node):
    with bench(listen=("depth/image", "depth/relative", "depth/scale")) as it:
        it.wait_reading()
        it.wait(lambda: it.node.count_publishers("depth/relative") > 0, "the node's topics")
        yield it


def relative_of(camera):
    return depth_of(camera.expect("depth/relative", camera.send(RGB)))


def chosen_scale(relative):
    """a and b that take this output to depths from 0.5 to 8 m."""
    low, high = relative.min(), relative.max()
    a = (1 / 0.5 - 1 / 8) / (high - low)
    return a, 1 / 8 - a * low


def optical_points(relative, step=9):
    """What a sensor in the camera would see."""
    a, b = chosen_scale(relative)
    k = camera_info(Header(), 320, 240).k
    v, u = (grid.ravel() for grid in np.mgrid[3:240:step, 3:320:step])
    z = 1 / (a * relative[v, u] + b)
    return np.stack([(u - k[2]) / k[0] * z, (v - k[5]) / k[4] * z, z], 1)


def now():
    header = Header(frame_id="lidar")
    header.stamp.sec, header.stamp.nanosec = divmod(time.time_ns(), 10**9)
    return header


def cloud(relative):
    points = Transform.from_rpy(*map(float, POSE.split())).inverse().apply(optical_points(relative)).astype(np.float32)
    points[::4] *= 1.8  # outliers
    fields = [PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1) for i, name in enumerate("xyz")]
    message = PointCloud2(header=now(), height=1, width=len(points), fields=fields, point_step=12, row_step=12 * len(points))
    message.data.frombytes(points.tobytes())
    return message


def check_metres(camera, relative, stamp):
    a, b = chosen_scale(relative)
    depth = depth_of(camera.expect("depth/image", stamp))
    assert np.isfinite(depth).mean() > 0.95
    assert np.nanmedian(np.abs(depth * (a * relative + b) - 1)) < 0.01
    (status,) = camera.expect("depth/scale", stamp).status
    values = {pair.key: pair.value for pair in status.values}
    assert float(values["a"]) == pytest.approx(a, rel=0.05) and values["valid"] == "true"
    assert int(values["inliers"]) > 0.6 * int(values["points"]) > 100 and float(values["residual"]) < 0.05
    return values


def test_no_metres_before_the_sensor_speaks_then_metres_then_none_again(camera, node):
    stamp = camera.send(RGB)
    relative = depth_of(camera.expect("depth/relative", stamp))
    camera.wait(
        lambda: "no metres: nobody publishes '/sensor/points'" in camera.values.get("last error", ""), "a word about it"
    )
    assert camera.received["depth/image"] == []
    (status,) = camera.expect("depth/scale", stamp).status
    assert status.level == b"\x02" and "nobody publishes" in status.message

    points = camera.publisher(PointCloud2, "/sensor/points")
    camera.wait(lambda: points.get_subscription_count() > 0, "a reader of the points")
    points.publish(cloud(relative))
    camera.spin(0.3)
    check_metres(camera, relative, camera.send(RGB))
    camera.wait(lambda: camera.values.get("scale valid") == "true", "scale in diagnostics")
    assert float(camera.values["scale residual"]) < 0.05

    camera.spin(0.6)
    held = camera.send(RGB)  # no new points: held, and said so
    camera.expect("depth/image", held)
    assert "within 0.5 s of the image" in camera.expect("depth/scale", held).status[0].message
    camera.spin(2.0)
    ended = camera.send(RGB)
    camera.expect("depth/relative", ended)
    camera.spin(0.3)
    assert all(stamp_of(message) != ended for message in camera.received["depth/image"])
    assert node.alive and "Traceback" not in node.log


def test_metres_stop_with_another_input_size_until_the_scale_is_valid_again(camera):
    relative, points = relative_of(camera), camera.publisher(PointCloud2, "/sensor/points")
    camera.wait(lambda: points.get_subscription_count() > 0, "a reader of the points")
    points.publish(cloud(relative))
    camera.spin(0.2)
    check_metres(camera, relative, camera.send(RGB))
    assert camera.set_parameters(input_size=140) == (True, "")
    camera.wait(lambda: camera.values.get("input size") == "140", "the new size")
    camera.spin(0.3)
    stamp = camera.send(RGB)
    other = depth_of(camera.expect("depth/relative", stamp))
    camera.spin(0.3)
    assert all(stamp_of(message) != stamp for message in camera.received["depth/image"])
    points.publish(cloud(other))
    camera.spin(0.2)
    check_metres(camera, other, camera.send(RGB))
    assert camera.set_parameters(input_size=112) == (True, "")
    camera.wait(lambda: camera.values.get("input size") == "112", "the old size")


def test_a_laser_scan_serves(camera):
    """Beams in the plane of the camera's middle row; the sensor's x is the optical z."""
    relative = relative_of(camera)
    a, b = chosen_scale(relative)
    k = camera_info(Header(), 320, 240).k
    row = round(k[5])
    angles = np.linspace(-0.4, 0.4, 161)
    u = k[2] - k[0] * np.tan(angles)  # counterclockwise is to the left
    z = 1 / (a * relative[row, np.clip(np.round(u).astype(int), 0, 319)] + b)
    scan = LaserScan(header=now(), angle_min=-0.4, angle_max=0.4, angle_increment=0.005, range_min=0.1, range_max=30.0)
    scan.ranges = [float(value) for value in z / np.cos(angles)]
    scan.ranges[5], scan.ranges[6], scan.ranges[7] = float("nan"), float("inf"), 0.0
    publisher = camera.node.create_publisher(LaserScan, "/sensor/points", 5)
    camera.wait(lambda: publisher.get_subscription_count() > 0, "a reader of the scan")

    def answer(frame_id):
        scan.header = now()
        scan.header.frame_id = frame_id
        publisher.publish(scan)
        camera.spin(0.2)
        stamp = camera.send(RGB)
        return stamp, camera.expect("depth/scale", stamp).status[0]

    assert "no transform from 'mast'" in answer("mast")[1].message
    stamp, status = answer("level_lidar")
    assert status.level == b"\x00", status.message
    values = {pair.key: float(pair.value) for pair in status.values if pair.key in "ab"}
    depth = depth_of(camera.expect("depth/image", stamp))
    assert values["a"] == pytest.approx(a, rel=0.05)
    assert np.nanmedian(np.abs(depth * (a * relative + b) - 1)) < 0.02
    camera.spin(2.5)  # nothing is held
    _, status = answer("lidar")  # another pose: nothing fits, and it is refused
    assert status.level == b"\x02" and status.message, status
    camera.node.destroy_publisher(publisher)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_depth_image_serves(camera, compressed):
    relative = relative_of(camera)
    a, b = chosen_scale(relative)
    metres = (1 / (a * relative + b)).astype(np.float32)
    metres[:40] = np.nan
    publisher = camera.node.create_publisher(CompressedImage if compressed else Image, "/sensor/points", 5)
    infos = camera.node.create_publisher(CameraInfo, "/sensor/camera_info", 5)
    camera.wait(lambda: publisher.get_subscription_count() > 0 and infos.get_subscription_count() > 0, "readers of depth")
    camera.spin(0.5)  # the readers follow the publishers' reliability
    header = now()
    header.frame_id = FRAME
    image = compressed_depth_of(metres, 0) if compressed else image_of(metres, 0, "32FC1")
    image.header = header
    infos.publish(camera_info(header, 320, 240))
    camera.spin(0.1)
    publisher.publish(image)
    camera.spin(0.2)
    check_metres(camera, relative, camera.send(RGB))
    if compressed:
        image.format = "jpeg"
    else:
        image.encoding = "rgb8"
    image.header = now()
    publisher.publish(image)
    camera.spin(0.2)
    message = camera.expect("depth/scale", camera.send(RGB)).status[0].message
    assert ("format 'jpeg', expected compressedDepth" if compressed else "encoding 'rgb8', expected one of 32FC1") in message
    infos.wait_for_all_acked(Duration(seconds=5))
    camera.node.destroy_publisher(publisher)
    camera.node.destroy_publisher(infos)


def test_a_cloud_that_cannot_be_true_costs_the_scale_only(camera, node):
    camera.listen("depth/color")
    relative, points = relative_of(camera), camera.publisher(PointCloud2, "/sensor/points")
    camera.wait(lambda: points.get_subscription_count() > 0, "a reader of the points")
    camera.spin(2.5)  # nothing is held
    for spoil, words in (
        (lambda m: setattr(m.fields[2], "offset", 40), "field z is no float within its points of 12 bytes"),
        (lambda m: setattr(m.fields[0], "datatype", 9), "field x is no float"),
        (lambda m: setattr(m, "fields", m.fields[:2]), "with the fields x, y, expected x, y and z"),
        (lambda m: setattr(m, "point_step", 0), "is no float within its points of 0 bytes"),
        (lambda m: setattr(m, "row_step", 12 * m.width + 12), "bytes: too few"),
    ):
        message = cloud(relative)
        spoil(message)
        points.publish(message)
        camera.spin(0.15)
        stamp = camera.send(RGB)
        assert words in camera.expect("depth/scale", stamp).status[0].message
        camera.expect("depth/color", stamp)
    message = cloud(relative)
    message.data.frombytes(b"more")  # some drivers pad
    points.publish(message)
    camera.spin(0.15)
    check_metres(camera, relative, camera.send(RGB))
    assert "internal error" not in node.log


def test_a_depth_image_alone_says_what_is_missing(camera):
    publisher = camera.node.create_publisher(Image, "/sensor/points", 5)
    camera.wait(lambda: publisher.get_subscription_count() > 0, "a reader")
    header = now()
    image = Image(header=header, height=2, width=2, encoding="32FC1", step=8)
    image.data.frombytes(bytes(16))
    publisher.publish(image)
    camera.spin(0.15)
    message = camera.expect("depth/scale", camera.send(RGB)).status[0].message
    assert "a depth image, but no camera_info on '/sensor/camera_info'" in message
    camera.node.destroy_publisher(publisher)


def test_the_service_writes_a_calibration_that_the_next_node_runs_with(camera, tmp_path, vits, node):
    relative, points = relative_of(camera), camera.publisher(PointCloud2, "/sensor/points")
    camera.wait(lambda: points.get_subscription_count() > 0, "a reader of the points")
    client = camera.node.create_client(Trigger, "depth_node/calibrate")
    camera.wait(client.service_is_ready, "the service")

    future = client.call_async(Trigger.Request())  # no points meanwhile
    camera.spin(0.6)  # what came before is too old
    camera.send(RGB)
    camera.wait(future.done, "the answer")
    assert not future.result().success and "nothing to compare in 3 s" in future.result().message

    future = client.call_async(Trigger.Request())
    camera.spin(0.2)
    for _ in range(8):
        points.publish(cloud(relative))
        camera.spin(0.1)
        camera.send(RGB)
        camera.spin(0.2)
    camera.wait(future.done, "the answer")
    answer = future.result()
    assert answer.success, answer.message
    path = answer.message.split("written to ")[1]
    scale = yaml.safe_load(Path(path).read_text())["/**"]["ros__parameters"]["scale"]
    a, b = chosen_scale(relative)
    assert scale["source"] == "fixed" and scale["network"] == "v2/vits/112/vits.pth" and 0.5 < scale["focal"] < 2
    assert np.median(np.abs((scale["a"] * relative + scale["b"]) / (a * relative + b) - 1)) < 0.01

    common = {"model": "v2", "checkpoint": vits, "device": "cpu", "edges__tolerance": 0.0}
    remap = ("--params-file", path, "-r", "__ns:=/fixed")
    with (
        DepthProcess(tmp_path, *remap, input_size=112, **common) as fixed,
        bench(namespace="/fixed", listen=("depth/image", "depth/scale")) as it,
    ):
        it.wait_reading()
        it.wait(lambda: "running v2/vits" in fixed.log, "its network")
        depth = depth_of(it.expect("depth/image", it.send(RGB)))
        assert np.nanmedian(np.abs(depth * (a * relative + b) - 1)) < 0.01
        assert it.set_parameters(input_size=140) == (True, "")
        it.wait(lambda: it.values.get("input size") == "140", "the new size")
        it.spin(0.3)
        status = it.expect("depth/scale", it.send(RGB)).status[0]
        assert "measured with network 'v2/vits/112/vits.pth', but this is 'v2/vits/140/vits.pth'" in status.message
        assert len(it.received["depth/image"]) == 1
        for wrong, words in (
            ({"scale__network": ""}, "scale.network is empty"),
            ({"scale__source": "sparse"}, "scale.topic is empty"),
            ({"scale__source": "focal"}, "serves v2_metric_indoor and v2_metric_outdoor"),
            ({"scale__source": "magic"}, "expected one of"),
        ):
            good, reason = it.set_parameters(**wrong)
            assert not good and words in reason
        assert "Traceback" not in fixed.log
    assert "Traceback" not in node.log
