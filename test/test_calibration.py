# SPDX-License-Identifier: Apache-2.0
"""Calibration of a scale: by hand from photos, and by the service of a running node. From a sensor: test_scale_node.py."""

import shutil

import cv2
import numpy as np
import pytest
import yaml
from ros import DepthProcess, bench, picture
from std_srvs.srv import Trigger

from depth_anything_ros.calibrate import main as calibrate
from depth_anything_ros.demo.families import HELD_OUT_SEED
from depth_anything_ros.demo.sources import photographed_scene
from depth_anything_ros.inference import DepthEstimator
from depth_anything_ros.models import locate

FRAME = "camera_color_optical_frame"
RGB = picture()


@pytest.fixture(scope="module")
def estimator():
    return DepthEstimator.create("demo", device="cpu", backend="torch")


@pytest.fixture(scope="module")
def shot():
    return photographed_scene(HELD_OUT_SEED + 3, "room", 320, 240)


def test_calibration_by_hand(tmp_path, estimator, shot, capsys, monkeypatch):
    """Metres of a metric network that are all off by one factor: the points give it back."""
    photo, output = tmp_path / "photo.png", tmp_path / "new" / "scale.yaml"
    cv2.imwrite(str(photo), cv2.cvtColor(shot.rgb, cv2.COLOR_RGB2BGR))
    depth = estimator.predict(shot.rgb).at_image_size()
    points = [(60, 200), (160, 220), (250, 180), (160, 120), (100, 150)]
    words = [f"{u},{v}={1.25 * depth[v, u]:.4f}" for u, v in points]
    words[3] = "160,120=9.9"  # one was misread
    line = ["--backend", "torch", "--model", "demo", "--device", "cpu", "--output", str(output), "--fov-deg", "60"]
    assert calibrate([str(photo), *words, *line]) == 0
    parameters = yaml.safe_load(output.read_text())["/**"]["ros__parameters"]
    said = parameters["scale"]
    assert parameters["model"] == "demo" and "checkpoint" not in parameters
    assert said["source"] == "fixed" and said["network"] == "demo/tiny/192" and said["b"] == 0
    assert said["a"] == pytest.approx(1 / 1.25, rel=0.02)
    assert said["focal"] == pytest.approx(320 / 2 / np.tan(np.radians(30)) / 240, abs=1e-3)
    assert "measured 9.900 m" in capsys.readouterr().out

    monkeypatch.chdir(tmp_path)
    shutil.copyfile(locate("demo", "tiny"), 'my "own".safetensors')
    assert calibrate([str(photo), *words, *line, "--checkpoint", 'my "own".safetensors']) == 0
    parameters = yaml.safe_load(output.read_text())["/**"]["ros__parameters"]
    assert parameters["checkpoint"] == str(tmp_path / 'my "own".safetensors')  # wherever the node is started

    apart = [f"{u},{v}={f * depth[v, u]:.4f}" for (u, v), f in zip(points, (1.25, 3.5))]
    for wrong, words in (
        (["60,200=1.5"], "comes before any photo"),
        ([str(photo)], "no points for"),
        ([str(photo), "400,10=1.5"], "320x240 pixels, and a point lies outside"),
        ([str(photo), "10,10=0"], "a distance of 0 m"),
        ([str(tmp_path / "none.png"), "1,1=2"], "cannot be read as an image"),
        ([str(photo), "1,1=2", "--input-size", "100"], "not a multiple of 16"),
        ([str(photo), *apart[:1], str(photo), *apart[1:]], "1 of 2 points agree: measure again"),
    ):
        assert calibrate([*wrong, *line]) == 2
        assert words in capsys.readouterr().err


def test_a_relative_network_needs_two_distances(tmp_path, vits, shot, capsys):
    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), shot.rgb)
    line = ["--checkpoint", str(vits), "--device", "cpu", "--input-size", "112", "--output", str(tmp_path / "s.yaml")]
    assert calibrate([str(photo), "10,10=1.0", *line]) == 2
    assert "1 points, expected 2" in capsys.readouterr().err
    assert calibrate([str(photo), "10,10=1.0", "200,100=1.1", *line]) == 2
    assert "cannot be told apart" in capsys.readouterr().err


def test_the_service_needs_no_listener_and_always_answers(tmp_path, vits):
    parameters = {"model": "demo", "device": "cpu", "scale__source": "ground", "scale__max_residual": 1.0}
    transforms = f'["base_link {FRAME} 0 0 0.5 -1.9 0 -1.5707963"]'
    line = ("-r", "__ns:=/alone")
    with (
        DepthProcess(
            tmp_path, *line, transforms=transforms, scale__calibration_file="~nobodyhere/x.yaml", **parameters
        ) as node,
        bench(namespace="/alone", listen=()) as it,
    ):
        it.wait_reading()
        client = it.node.create_client(Trigger, "depth_node/calibrate")
        it.wait(client.service_is_ready, "the service")
        future = client.call_async(Trigger.Request())
        while not future.done():
            it.send(RGB)
            it.spin(0.3)
        answer = future.result().message
        assert not future.result().success and "not calibrated" in answer and "no images" not in answer
        it.set_parameters(scale__source="none")
        it.spin(0.5)
        future = client.call_async(Trigger.Request())
        it.wait(future.done, "the answer")
        assert "scale.source is none: set it to sparse or ground" in future.result().message
        assert "Traceback" not in node.log
