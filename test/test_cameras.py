# SPDX-License-Identifier: Apache-2.0
"""Several cameras on one network, distorted and turned cameras, and cameras without calibration, through the node."""

import time

import cv2
import numpy as np
import pytest
from ros import Bench, DepthProcess, bench, depth_of, picture, qos, stamp_of
from sensor_msgs.msg import CameraInfo, Image

from depth_anything_ros.demo.families import HELD_OUT_SEED
from depth_anything_ros.demo.sources import photographed_scene

BARREL = [-0.3546, 0.1265, 0.0009, -0.0006, -0.0203]


class Rig:
    """Cameras of one bench by their names: their publishers, and what came back of each."""

    def __init__(self, it: Bench, **sizes):
        self.it, self.sizes = it, sizes
        self.depth = {name: [] for name in sizes}
        for name in sizes:
            it.node.create_subscription(Image, f"{name}/depth/image", self.depth[name].append, qos())
        self.status = {}

    def wait_ready(self):
        from diagnostic_msgs.msg import DiagnosticArray

        def read(array):
            for status in array.status:
                self.status[status.name.split(": depth ")[-1]] = (status.message, {v.key: v.value for v in status.values})

        self.it.node.create_subscription(DiagnosticArray, "/diagnostics", read, qos())
        ready = lambda: all(self.status.get(n, ("", {}))[1].get("network") == "ready" for n in self.sizes)  # noqa: E731
        self.it.wait(ready, "the network, in the diagnostics of every camera")
        for name in self.sizes:
            self.it.wait_subscribed(Image, f"{name}/image")

    def send(self, name, edit=None):
        width, height = self.sizes[name]
        rgb = picture(width, height, seed=len(name))
        image = Image(height=height, width=width, encoding="rgb8", step=3 * width)
        image.header.frame_id = f"{name}_optical_frame"
        image.header.stamp.sec, image.header.stamp.nanosec = divmod(time.time_ns(), 10**9)
        image.data.frombytes(rgb.tobytes())
        if edit:
            edit(image)
        self.it.publisher(Image, f"{name}/image").publish(image)
        return stamp_of(image)


def test_three_cameras_of_other_sizes_and_rates_then_one_silent_and_one_broken(tmp_path):
    """Every depth image has the stamp, frame and size of its own camera's image; trouble stays with its camera."""
    sizes = {"front": (320, 240), "left": (320, 240), "rear": (200, 160)}
    periods = {"front": 0.1, "left": 0.1, "rear": 0.25}
    parameters = {"model": "demo", "device": "cpu", "input_size": 96, "cameras": "[front, left, rear]"}
    with DepthProcess(tmp_path, **parameters) as node, bench(listen=()) as it:
        rig = Rig(it, **sizes)
        rig.wait_ready()

        def play(seconds, silent=(), spoil=None):
            sent, due = {name: [] for name in sizes}, dict.fromkeys(sizes, 0.0)
            for images in rig.depth.values():
                images.clear()
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                for name in sizes:
                    if name not in silent and time.monotonic() >= due[name]:
                        due[name] = time.monotonic() + periods[name]
                        sent[name].append(rig.send(name, spoil if name == "left" else None))
                it.spin(0.01)
            it.spin(0.5)
            return sent

        sent = play(5)
        for name, (width, height) in sizes.items():
            got = rig.depth[name]
            assert len(got) > 0.5 * len(sent[name]) > 5, (name, len(got), len(sent[name]))
            assert {(m.width, m.height, m.header.frame_id) for m in got} == {(width, height, f"{name}_optical_frame")}
            assert {stamp_of(m) for m in got} <= set(sent[name])
            assert int(rig.status[name][1]["frames published"]) > 0

        def truncate(image):
            image.data = image.data[: len(image.data) // 2]

        sent = play(6, silent=("rear",), spoil=truncate)
        assert len(rig.depth["front"]) > 0.5 * len(sent["front"])
        assert not rig.depth["left"] and not rig.depth["rear"]
        assert "refused" in rig.status["left"][0] and "no image for" in rig.status["rear"][0]
        assert rig.status["front"][0] == "running"
        assert "left: image on '/left/image' refused" in node.log
        assert play(3) and len(rig.depth["rear"]) > 3 and len(rig.depth["left"]) > 3  # both come back


def test_cameras_that_arrive_together_give_what_each_gives_alone(tmp_path):
    """Batched or not, the depth of an image is the same; the images are different ones."""
    parameters = {"model": "demo", "device": "cpu", "input_size": 96, "cameras": "[front, left]", "edges__tolerance": 0.0}
    with DepthProcess(tmp_path, **parameters), bench(listen=()) as it:
        rig = Rig(it, front=(320, 240), left=(320, 240))
        rig.wait_ready()

        def depth(*names):
            stamps = {name: rig.send(name) for name in names}
            find = lambda n: next((m for m in rig.depth[n] if stamp_of(m) == stamps[n]), None)  # noqa: E731
            it.wait(lambda: all(find(name) for name in names), "depth of both")
            return [depth_of(find(name)) for name in names]

        alone = depth("front") + depth("left")
        for _ in range(3):
            for a, b in zip(depth("front", "left"), alone):
                np.testing.assert_allclose(a, b, rtol=1e-3)
        assert np.abs(alone[0] / alone[1] - 1).max() > 0.01


@pytest.mark.parametrize(
    "cameras, expected", [("[front, front]", "each once"), ("[color]", "'color' in cameras is no camera's name")]
)
def test_names_that_are_none(tmp_path, cameras, expected):
    node = DepthProcess(tmp_path, model="demo", cameras=cameras)
    assert node.process.wait(60) == 1
    assert expected in node.log and "Traceback" not in node.log


def distort(message, width=640):
    message.d = BARREL
    message.p = [0.7 * width, 0.0, 0.5 * width, 0.0, 0.0, 0.7 * width, 0.37 * width, 0.0, 0.0, 0.0, 1.0, 0.0]


def test_a_distorted_camera_is_rectified_and_its_view_published(tmp_path):
    """rgb/image_rect is what OpenCV's own undistortion gives, and depth, calibration and cloud belong to it."""
    rgb = photographed_scene(HELD_OUT_SEED + 3, "room", 640, 480).rgb
    with DepthProcess(tmp_path, model="demo", device="cpu"), bench() as it:
        views, infos = [], []
        it.node.create_subscription(Image, "rgb/image_rect", views.append, qos())
        it.node.create_subscription(CameraInfo, "rgb/camera_info", infos.append, qos())
        it.wait_reading()
        stamp = it.send(rgb, edit_info=distort)
        depth, info, cloud = (it.expect(t, stamp) for t in ("depth/image", "depth/camera_info", "depth/points"))
        it.wait(lambda: views and infos, "the view")
        k = np.array([[576.0, 0, 307.2], [0, 588.8, 254.4], [0, 0, 1]])  # as ros.camera_info says
        new = np.array([[448.0, 0, 320], [0, 448, 236.8], [0, 0, 1]])
        maps = cv2.initUndistortRectifyMap(k, np.array(BARREL), None, new, (640, 480), cv2.CV_32FC1)
        expected = cv2.remap(rgb, *maps, cv2.INTER_LINEAR)
        seen = np.frombuffer(views[0].data, np.uint8).reshape(480, 640, 3)
        assert np.abs(seen.astype(int) - expected).mean() < 1 and np.abs(rgb.astype(int) - expected).mean() > 5
        assert views[0].header == depth.header == info.header and list(info.k) == list(infos[0].k)
        assert not any(info.d) and (info.k[0], info.k[2], info.k[5]) == (448, 320, pytest.approx(236.8))
        x, y, z = (np.frombuffer(cloud.data, np.float32).reshape(480, 640, 4)[..., i] for i in range(3))
        v, u = np.mgrid[0:480, 0:640]
        good = np.isfinite(z)
        np.testing.assert_allclose(x[good], ((u - 320) / 448 * z)[good], atol=1e-3)
        reached = (maps[0] >= 0) & (maps[0] <= 639) & (maps[1] >= 0) & (maps[1] <= 479)
        assert np.isnan(depth_of(depth)[~reached]).all() and (~reached).any()
        it.wait(lambda: it.values.get("calibration") == "camera_info, rectified here", "diagnostics")


def test_rays_leave_the_image_as_it_is(tmp_path):
    """Every point of the cloud projects onto the pixel that it came from, by OpenCV and the D that was sent."""
    with DepthProcess(tmp_path, model="demo", device="cpu", camera__rectify="rays"), bench() as it:
        it.wait_reading()
        stamp = it.send(picture(640, 480), edit_info=distort)
        info, cloud = it.expect("depth/camera_info", stamp), it.expect("depth/points", stamp)
        assert list(info.d) == BARREL and info.distortion_model == "plumb_bob"
        points = np.frombuffer(cloud.data, np.float32).reshape(480, 640, 4)[..., :3].astype(np.float64)
        v, u = np.nonzero(np.isfinite(points).all(-1))
        assert len(u) > 0.9 * 640 * 480
        k = np.array([[576.0, 0, 307.2], [0, 588.8, 254.4], [0, 0, 1]])
        pixels = cv2.projectPoints(points[v, u], np.zeros(3), np.zeros(3), k, np.array(BARREL))[0].reshape(-1, 2)
        assert np.abs(pixels - np.stack([u, v], -1)).max() < 0.12


def test_rectify_true_waits_for_a_calibration(tmp_path):
    """`true`, as YAML's bool; nothing is published that could be taken for a rectified view."""
    with DepthProcess(tmp_path, model="demo", device="cpu", camera__rectify=True) as node, bench() as it:
        it.wait_reading()
        it.send(picture(), info=False)
        it.spin(2)
        assert not it.received["depth/image"]
        assert "without it the image cannot be rectified" in node.log
        it.expect("depth/image", it.send(picture()))


@pytest.mark.parametrize("degrees, code", [(90, cv2.ROTATE_90_CLOCKWISE), (270, cv2.ROTATE_90_COUNTERCLOCKWISE)])
def test_a_camera_that_is_mounted_on_its_side(tmp_path, degrees, code):
    """The network sees the upright image; depth comes back in the camera's own frame and size."""
    upright = photographed_scene(HELD_OUT_SEED + 3, "room", 320, 240).rgb
    inverse = {cv2.ROTATE_90_CLOCKWISE: cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_90_COUNTERCLOCKWISE: cv2.ROTATE_90_CLOCKWISE}
    sideways = cv2.rotate(upright, inverse[code])
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    parameters = {"model": "demo", "device": "cpu", "edges__tolerance": 0.0}
    with DepthProcess(tmp_path / "a", **parameters), bench() as it:
        it.wait_reading()
        expected = depth_of(it.expect("depth/image", it.send(upright)))
    with DepthProcess(tmp_path / "b", **parameters, camera__rotation=degrees), bench() as it:
        it.wait_reading()
        stamp = it.send(sideways)
        depth, info = depth_of(it.expect("depth/image", stamp)), it.expect("depth/camera_info", stamp)
        assert depth.shape == (320, 240) and (info.width, info.height) == (240, 320)
        np.testing.assert_allclose(cv2.rotate(depth, code), expected, rtol=1e-3)
        assert np.abs(depth[:240] / expected[:, :240] - 1).mean() > 0.05


def test_without_calibration_a_field_of_view_can_be_assumed_and_is_said(tmp_path):
    with DepthProcess(tmp_path, model="demo", device="cpu", camera__fov_deg=90.0), bench() as it:
        it.wait_reading()
        stamp = it.send(picture(320, 240), info=False)
        info, cloud = it.expect("depth/camera_info", stamp), it.expect("depth/points", stamp)
        assert info.k[0] == pytest.approx(160) and (info.k[2], info.k[5]) == (159.5, 119.5)  # 90 degrees: half the width
        assert np.isfinite(np.frombuffer(cloud.data, np.float32)).any()
        it.wait(lambda: "field of view of 90 degrees is assumed" in it.values.get("calibration", ""), "diagnostics")
        stamp = it.send(picture(320, 240))  # a real one wins
        assert it.expect("depth/camera_info", stamp).k[0] == pytest.approx(0.9 * 320)


def test_a_frame_that_is_not_optical_is_named_and_can_be_overridden(tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    with DepthProcess(tmp_path / "a", model="demo", device="cpu") as node, bench() as it:
        it.wait_reading()
        assert it.expect("depth/image", it.send(picture(), frame_id="camera_link")).header.frame_id == "camera_link"
        it.wait(lambda: it.values["frame_id"] == "camera_link (not optical by its name)", "diagnostics")
        it.wait(lambda: "'camera_link' is not optical by its name" in node.log and "set camera.frame_id" in node.log, "the log")
    with DepthProcess(tmp_path / "b", model="demo", device="cpu", camera__frame_id="camera_optical") as node, bench() as it:
        it.wait_reading()
        stamp = it.send(picture(), frame_id="camera_link")
        for topic in ("depth/image", "depth/points", "depth/camera_info", "depth/color"):
            assert it.expect(topic, stamp).header.frame_id == "camera_optical"
        it.spin(1.2)
        assert it.values["frame_id"] == "camera_optical" and "not optical" not in node.log


def test_topics_as_parameters(tmp_path):
    """What a preset says: three topics, each by itself."""
    topics = {"camera__image": "/cam/picture", "camera__camera_info": "/elsewhere/info", "camera__compressed": "/cam/jpeg"}
    with DepthProcess(tmp_path, model="demo", device="cpu", **topics), bench() as it:
        it.wait_ready()
        it.wait_subscribed(Image, "/cam/picture")
        it.wait_subscribed(CameraInfo, "/elsewhere/info")
        assert it.values["image topic"] == "/cam/picture" and it.values["camera_info topic"] == "/elsewhere/info"
        ok, reason = it.set_parameters(camera__rotation=90)
        assert not ok and "only before the node is configured" in reason
    node = DepthProcess(tmp_path, model="demo", camera__image="//no/topic name")
    assert node.process.wait(60) == 1 and "camera.image" in node.log and "Traceback" not in node.log
