# SPDX-License-Identifier: Apache-2.0
"""Every output that is made on request, of the running node; and what is said where a transform is missing."""

import cv2
import numpy as np
import pytest
from ros import ON_REQUEST, DepthProcess, bench, depth_of, picture, stamp_of

from depth_anything_ros.messages.cloud_reader import read_with_numpy

MOUNT = "base_link camera_color_optical_frame 0.1 0 0.6 -1.9 0 -1.5707963"  # looks ahead and down by 19 degrees


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    parameters = {
        "model": "demo",
        "device": "cpu",
        "confidence__enabled": True,
        "stabilizer__enabled": True,
        "scale__source": "ground",
        "scale__max_residual": 1.0,
        "transforms": f'["{MOUNT}"]',
    }
    with DepthProcess(tmp_path_factory.mktemp("node"), **parameters) as process:
        yield process


@pytest.fixture
def camera(node):
    with bench(listen=("depth/image", "depth/image_raw", "depth/color", "depth/points", *ON_REQUEST)) as it:
        it.wait_reading()
        it.wait(lambda: it.node.count_publishers("depth/scan") > 0, "the node's topics")
        assert it.set_parameters(scale__source="none", out_of_range="nan", max_depth=0.0) == (True, "")
        it.spin(0.5)
        yield it


def test_every_output_has_the_stamp_and_the_frame_of_its_image(camera, node):
    stamp = camera.send(picture())
    for topic in ON_REQUEST.keys() - {"depth/scale"}:
        message = camera.expect(topic, stamp)
        frame = "base_link" if topic == "depth/scan" else "camera_color_optical_frame"
        assert message.header.frame_id == frame, topic
    depth = depth_of(camera.expect("depth/image", stamp))
    confidence = depth_of(camera.expect("depth/confidence", stamp))
    assert confidence.shape == depth.shape and 0 < confidence.min() <= confidence.max() <= 1
    clouds = {name: read_with_numpy(camera.expect(f"depth/{name}", stamp)) for name in ("points", "ground", "obstacles")}
    assert 0 < clouds["ground"].size + clouds["obstacles"].size <= np.isfinite(clouds["points"]["x"]).sum()
    raw = camera.expect("depth/image_raw/compressedDepth", stamp)
    millimetres = cv2.imdecode(np.frombuffer(bytes(raw.data[12:]), np.uint8), cv2.IMREAD_UNCHANGED)
    expected = np.frombuffer(camera.expect("depth/image_raw", stamp).data, np.uint16).reshape(depth.shape)
    np.testing.assert_array_equal(millimetres, expected)
    jpeg = cv2.imdecode(np.frombuffer(bytes(camera.expect("depth/color/compressed", stamp).data), np.uint8), cv2.IMREAD_COLOR)
    color = np.frombuffer(camera.expect("depth/color", stamp).data, np.uint8).reshape(jpeg.shape)
    assert np.abs(jpeg.astype(int) - color).mean() < 12
    assert all(stamp_of(message) != stamp for message in camera.received["depth/scale"])  # there is none
    assert "Traceback" not in node.log


def test_the_band_of_heights_and_the_scan_use_the_transform(camera):
    assert camera.set_parameters(cloud__min_height=0.2, cloud__max_height=1.0, cloud__stride=2) == (True, "")
    camera.spin(0.5)
    cloud = read_with_numpy(camera.expect("depth/points", camera.send(picture())))
    assert cloud.shape == (120, 160)
    x, y, z = (cloud[name][np.isfinite(cloud["x"])].astype(float) for name in "xyz")
    height = (
        0.6 - np.cos(1.9 - np.pi / 2) * y - np.sin(1.9 - np.pi / 2) * z
    )  # of an optical frame that looks down by 19 degrees
    assert len(x) > 50 and height.min() >= 0.2 - 1e-3 and height.max() <= 1.0 + 1e-3
    assert camera.set_parameters(cloud__min_height=0.0, cloud__max_height=0.0, cloud__stride=1) == (True, "")
    for wrong, words in (
        ({"cloud__min_height": 2.0, "cloud__max_height": 1.0}, "cloud.min_height 2 is not less than cloud.max_height 1"),
        ({"scan__min_range": 20.0}, "scan.min_range 20 is not less than scan.max_range 10"),
        ({"out_of_range": "zero"}, "expected one of: nan, inf"),
        ({"filter__median": 4}, "expected one of: 0, 3, 5"),
    ):
        good, reason = camera.set_parameters(**wrong)
        assert not good and words in reason


def test_what_is_out_of_range_is_infinite_on_request_and_makes_points_that_clear(camera):
    free = depth_of(camera.expect("depth/image", camera.send(picture())))
    far = float(np.nanmedian(free))
    assert camera.set_parameters(max_depth=far, out_of_range="inf") == (True, "")
    camera.spin(0.5)
    stamp = camera.send(picture())
    depth = depth_of(camera.expect("depth/image", stamp))
    beyond = np.isposinf(depth)
    assert 0.2 < beyond.mean() < 0.8 and np.nanmax(depth[~beyond]) <= far
    clearing = read_with_numpy(camera.expect("depth/clearing", stamp))
    assert clearing.size == beyond.sum() and np.allclose(clearing["z"], far)
    assert np.isnan(read_with_numpy(camera.expect("depth/points", stamp))["x"][beyond]).all()


def test_the_ground_gives_the_scale_and_a_missing_transform_takes_it(camera, node):
    assert camera.set_parameters(scale__source="ground") == (True, "")
    camera.spin(0.5)
    stamp = camera.send(picture())
    status = camera.expect("depth/scale", stamp).status[0]
    values = {pair.key: pair.value for pair in status.values}
    assert values["source"] == "ground" and values["valid"] in ("true", "false") and (status.message or values["inliers"])
    assert camera.set_parameters(base_frame="chassis") == (True, "")
    camera.spin(0.5)
    stamp = camera.send(picture())
    status = camera.expect("depth/scale", stamp).status[0]
    assert "no transform from 'camera_color_optical_frame' to 'chassis' (known frames: base_link, camera" in status.message
    assert camera.set_parameters(scale__source="none") == (True, "")
    camera.spin(0.5)
    stamp = camera.send(picture())
    camera.expect("depth/points", stamp)  # what needs no transform comes
    assert all(stamp_of(message) != stamp for message in camera.received["depth/scan"])
    wait = "without it there is no depth/ground and no depth/obstacles and no depth/scan"
    camera.wait(
        lambda: wait in camera.values["last error"] and "to 'chassis'" in camera.values["last error"], "a word about it"
    )
    assert camera.set_parameters(base_frame="base_link") == (True, "")
    assert node.alive and "Traceback" not in node.log
