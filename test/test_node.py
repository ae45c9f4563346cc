# SPDX-License-Identifier: Apache-2.0
"""The node as its users meet it: a real process, real DDS, real messages. One node serves most of these tests."""

import cv2
import numpy as np
import pytest
from ros import DepthProcess, bench, camera_info, depth_of, picture, stamp_of
from sensor_msgs.msg import CameraInfo, CompressedImage
from std_msgs.msg import Header

from depth_anything_ros.messages.cloud_reader import read_with_numpy


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    with DepthProcess(tmp_path_factory.mktemp("node"), model="demo", no_image_timeout=1.0) as process:
        yield process


@pytest.fixture
def camera(node):
    """A listener and a reliable camera that the node already reads."""
    with bench() as it:
        it.wait_reading()
        it.wait(lambda: it.node.count_publishers("depth/points") > 0, "the node's topics")
        it.expect("depth/image", it.send(picture()))
        yield it


def test_every_output_carries_the_stamp_frame_and_size_of_its_image(camera):
    for seed, (width, height) in enumerate([(320, 240), (424, 240), (240, 320)]):
        stamp = camera.send(picture(width, height, seed), frame_id=f"camera_{seed}_optical_frame")
        for topic in ("depth/image", "depth/image_raw", "depth/color", "depth/points", "depth/camera_info"):
            message = camera.expect(topic, stamp)
            assert message.header.frame_id == f"camera_{seed}_optical_frame"
            assert (message.width, message.height) == (width, height), topic
    assert camera.received["depth/relative"] == []


def test_cloud_depth_and_camera_info_agree_to_a_millimetre(camera):
    stamp = camera.send(picture(seed=3))
    depth = depth_of(camera.expect("depth/image", stamp))
    k = camera.expect("depth/camera_info", stamp).k
    sent = camera_info(Header(), 320, 240)
    np.testing.assert_array_equal(k, sent.k)
    cloud = read_with_numpy(camera.expect("depth/points", stamp))
    raw = camera.expect("depth/image_raw", stamp)
    assert (raw.encoding, camera.expect("depth/image", stamp).encoding) == ("16UC1", "32FC1")
    v, u = np.mgrid[0 : depth.shape[0], 0 : depth.shape[1]]
    np.testing.assert_allclose(cloud["x"], (u - k[2]) / k[0] * depth, atol=1e-3)
    np.testing.assert_allclose(cloud["y"], (v - k[5]) / k[4] * depth, atol=1e-3)
    np.testing.assert_allclose(cloud["z"], depth, atol=1e-3)
    millimetres = np.frombuffer(raw.data, np.uint16).reshape(depth.shape)
    np.testing.assert_allclose(millimetres / 1000, np.nan_to_num(depth), atol=0.51e-3)
    assert np.isfinite(depth).mean() > 0.5  # the comparison means something
    packed = np.ascontiguousarray(cloud["rgb"]).view(np.uint8).reshape(*depth.shape, 4)
    np.testing.assert_array_equal(packed[..., 2::-1], picture(seed=3))


def test_depth_outside_of_the_range_is_invalid_everywhere(camera):
    free = depth_of(camera.expect("depth/image", camera.send(picture(seed=1))))
    near, far = np.nanpercentile(free, (30, 70))
    assert camera.set_parameters(min_depth=float(near), max_depth=float(far)) == (True, "")
    camera.spin(0.6)
    stamp = camera.send(picture(seed=1))
    depth = depth_of(camera.expect("depth/image", stamp))
    np.testing.assert_array_equal(np.isfinite(depth), (free >= np.float32(near)) & (free <= np.float32(far)))
    raw = np.frombuffer(camera.expect("depth/image_raw", stamp).data, np.uint16).reshape(depth.shape)
    cloud = read_with_numpy(camera.expect("depth/points", stamp))
    color = np.frombuffer(camera.expect("depth/color", stamp).data, np.uint8).reshape(*depth.shape, 3)
    invalid = np.isnan(depth)
    assert (raw[invalid] == 0).all() and np.isnan(cloud["x"][invalid]).all() and (color[invalid] == 0).all()
    assert camera.set_parameters(min_depth=0.05, max_depth=0.0)[0]


def bad(**changes):
    def edit(message):
        for name, value in changes.items():
            if name == "k0":
                message.k = [value, *message.k[1:4], value, *message.k[5:]]
                message.p = [value, *message.p[1:5], value, *message.p[6:]]
            elif name == "data":
                del message.data[value:]
            else:
                setattr(message, name, value)

    return edit


@pytest.mark.parametrize(
    "edit, text",
    [
        (bad(step=100), "step is 100 bytes, but a row of 320 rgb8 pixels takes 960"),
        (bad(data=1000), "data holds 1000 bytes, but 240 rows of 960 bytes take 230400"),
        (bad(width=0, height=0), "the image is empty"),
        (bad(encoding="rgb8888"), "unknown encoding 'rgb8888'"),
        (bad(encoding="32FC1"), "unknown encoding '32FC1'"),
        (bad(height=1, width=76800, step=230400), "sides that differ by more than 8 times"),
    ],
)
def test_a_bad_image_costs_that_frame_only(camera, node, edit, text):
    before = int(camera.values.get("problems: bad image", 0))
    stamp = camera.send(picture(), edit=edit)
    camera.wait(lambda: int(camera.values.get("problems: bad image", 0)) > before, "a counted problem")
    assert text in camera.values["last error"]
    good = camera.send(picture())
    camera.expect("depth/points", good)
    assert node.alive and all(stamp_of(m) != stamp for m in camera.received["depth/image"])


@pytest.mark.parametrize(
    "edit_info, text",
    [
        (bad(k0=0.0), "K is all zero, which means uncalibrated"),
        (bad(k0=1.0), "a placeholder"),
        (bad(k0=float("nan")), "NaN or Inf"),
        (bad(width=1280, height=960), "camera_info is for 1280x960 images, but the image is 320x240"),
        (bad(distortion_model="octopus", d=[0.1, 0.2]), "unknown distortion model 'octopus'"),
        (bad(distortion_model="", d=[0.1, 0.2, 0.0, 0.0]), "distortion coefficients without a distortion model"),
        (bad(header=Header(frame_id="other_camera")), "camera_info is of frame 'other_camera', but the image is of"),
    ],
)
def test_a_bad_camera_info_costs_the_cloud_but_not_the_depth(camera, node, edit_info, text):
    before = int(camera.values.get("problems: bad camera_info", 0))
    stamp = camera.send(picture(), edit_info=edit_info)
    camera.expect("depth/image", stamp)
    camera.wait(lambda: int(camera.values.get("problems: bad camera_info", 0)) > before, "a counted problem")
    assert text in camera.values["last error"] and "no depth/points" in camera.values["last error"]
    good = camera.send(picture())
    camera.expect("depth/points", good)
    for topic in ("depth/points", "depth/camera_info"):
        assert all(stamp_of(message) != stamp for message in camera.received[topic])
    assert node.alive


def test_the_log_names_a_problem_once_and_not_for_every_frame(camera, node):
    camera.spin(5.1)  # past the period in which the same kind is not repeated
    before = node.log.count("refused: step is 100")
    for _ in range(10):
        camera.send(picture(), edit=bad(step=100))
        camera.spin(0.05)
    camera.spin(0.3)
    assert node.log.count("refused: step is 100") == before + 1


def test_a_camera_that_comes_back_with_another_qos_and_size(camera, node):
    camera.remove_cameras()
    camera.wait(lambda: "no image for" in camera.message, "a warning")
    assert "no publisher on '/image' or '/image/compressed'" in camera.message
    assert "no images: no publisher on '/image' or '/image/compressed'" in node.log
    camera.wait_subscribed(reliable=False)
    camera.wait_subscribed(CameraInfo, "camera_info", reliable=False)
    for _ in range(20):  # best effort may lose some
        camera.send(picture(160, 120), reliable=False)
        camera.spin(0.2)
    camera.wait(lambda: any(m.width == 160 for m in camera.received["depth/points"]), "a cloud of the new size")
    camera.remove_cameras()
    camera.wait_subscribed(reliable=True)
    camera.wait_subscribed(CameraInfo, "camera_info")
    camera.expect("depth/points", camera.send(picture()))


def test_a_compressed_camera_is_read_where_there_is_no_raw_one(camera):
    camera.remove_cameras()
    publisher = camera.publisher(CompressedImage, "image/compressed")
    camera.wait(lambda: publisher.get_subscription_count() > 0, "a reader of the compressed topic")
    camera.spin(0.3)
    rgb = picture(seed=5)
    message = CompressedImage(format="jpeg")
    message.header.stamp.sec, message.header.frame_id = 1234, "usb"
    message.data.frombytes(cv2.imencode(".jpg", rgb[..., ::-1])[1].tobytes())
    publisher.publish(message)
    depth = camera.expect("depth/image", 1234 * 10**9)
    assert (depth.header.frame_id, depth.width, depth.height) == ("usb", 320, 240)
    camera.remove_cameras()
    camera.wait_subscribed()


def test_nothing_is_computed_that_nobody_wants(node):
    with bench(listen=()) as it:
        it.wait_ready()
        it.wait_subscribed()
        it.spin(1.2)
        before, received = int(it.values["frames published"]), int(it.values["images received"])
        for _ in range(20):
            it.send(picture())
            it.spin(0.1)
        it.wait(lambda: int(it.values["images received"]) >= received + 15, "images received")
        it.spin(1.2)
        assert int(it.values["frames published"]) == before
        it.listen("depth/color")
        it.wait(lambda: it.send(picture()) and it.spin(0.1) or it.received["depth/color"], "colour, once somebody listens")


def test_diagnostics_tell_the_whole_story(camera):
    for _ in range(30):
        camera.send(picture())
        camera.spin(0.1)
    camera.wait(lambda: camera.message == "running", "a status without trouble")
    values = camera.values
    assert camera.status.name == "depth_node: depth" and camera.status.level == b"\x00"
    assert (values["model"], values["encoder"], values["licence"], values["state"]) == ("demo", "tiny", "Apache-2.0", "active")
    assert values["image topic"] == "/image" and values["camera_info topic"] == "/camera_info"
    assert 4 < float(values["input rate (Hz)"]) < 12 and 2 < float(values["output rate (Hz)"]) < 12
    assert 0 < float(values["latency p50 (ms)"]) <= float(values["latency p99 (ms)"]) < 5000


def test_input_size_changes_without_a_gap_longer_than_one_frame(camera):
    sent = []
    for step in range(40):
        if step == 10:
            assert camera.set_parameters(input_size=256)[0]
        sent.append(camera.send(picture(seed=step % 4)))
        camera.spin(0.2)
    camera.wait(lambda: camera.values["input size"] == "256", "the new input size")
    camera.spin(0.5)
    got = {stamp_of(message) for message in camera.received["depth/image"]}
    served = "".join("x" if stamp in got else "." for stamp in sent)
    assert ".." not in served, (served, camera.values)
    assert camera.set_parameters(input_size=0)[0]
    camera.wait(lambda: camera.values["input size"] == "192", "the model's own input size")


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"input_size": 250}, "250 is not a multiple of 16; the nearest are 240 and 256"),
        ({"encoder": "vitb"}, "model 'demo' has no encoder 'vitb', expected one of: tiny"),
        ({"model": "v9"}, "model is 'v9', expected one of: v1, v2"),
        ({"model": "v2", "encoder": "vitb"}, "CC-BY-NC-4.0: no commercial use"),
        ({"max_depth": 50.0}, "max_depth is 50 m, but model 'demo' measures up to 20 m"),
        ({"min_depth": 30.0}, "min_depth 30 m is not less than max_depth 20 m"),
        ({"color__map": "rainbow"}, "color.map is 'rainbow', expected one of: turbo"),
        ({"checkpoint": "/no/such/file.pth"}, "does not exist"),
        ({"image_bridge": "builtin"}, "only before the node is configured"),
        ({"device": "cuda:77"}, "not available"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused_with_the_reason(camera, change, reason):
    successful, text = camera.set_parameters(**change)
    assert not successful and reason in text
    camera.expect("depth/image", camera.send(picture()))


def test_a_network_that_cannot_be_loaded_leaves_the_old_one_running(camera, tmp_path):
    """Every parameter of the failed request goes back, also one that has nothing to do with the network."""
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"\0" * 100)
    asked = {"model": "v2", "encoder": "vits", "checkpoint": str(broken), "input_size": 112, "max_depth": 7.0}
    assert camera.set_parameters(**asked)[0]
    camera.wait(lambda: camera.values.get("problems: network change") == "1", "the failure in diagnostics")
    assert "is not a PyTorch or safetensors file" in camera.values["last error"]
    camera.spin(1.5)
    before = {"model": "demo", "encoder": "", "checkpoint": "", "input_size": 0, "max_depth": 0.0}
    assert {name: camera.get_parameter(name) for name in before} == before
    assert camera.values["problems: network change"] == "1" and camera.values["model"] == "demo"
    camera.expect("depth/image", camera.send(picture()))


def test_best_effort_readers_receive_the_cloud(node):
    """Nav2 reads best effort; with the shipped Fast DDS profile it has to get at least 95 %."""
    with bench(listen=("depth/points",), reliable=False) as it:
        it.listen("depth/camera_info")
        it.wait_reading()
        it.spin(1.0)
        for _ in range(60):
            it.send(picture(640, 480))
            it.spin(0.12)
        it.spin(1.0)
        published = len(it.received["depth/camera_info"])  # small and reliable: one for each frame
        assert published >= 30
        assert len(it.received["depth/points"]) >= 0.95 * published


def test_the_node_survived_all_of_this_without_a_traceback(node):
    assert node.alive
    assert "Traceback" not in node.log and "internal error" not in node.log
