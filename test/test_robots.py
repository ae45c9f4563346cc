# SPDX-License-Identifier: Apache-2.0
"""Every preset against a camera that behaves as its driver does: its topics, encoding, frame and QoS are drivers.py's own."""

from pathlib import Path

import cv2
import pytest
import yaml
from drivers import DRIVERS, StandIn
from ros import DepthProcess, bench, picture, stamp_of
from sensor_msgs.msg import CompressedImage

from depth_anything_ros.stream.table import CAMERA_TABLE, TABLE

FOLDER = Path(__file__).resolve().parent.parent / "config" / "robots"
SMALL = ("-p", "model:=demo", "-p", "input_size:=96", "-p", "device:=cpu")


def parameters_of(robot):
    return yaml.safe_load((FOLDER / f"{robot}.yaml").read_text())["/**"]["ros__parameters"]


def test_every_preset_has_a_driver_to_be_tried_against():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(DRIVERS)


@pytest.mark.parametrize("robot", DRIVERS)
def test_keys_are_parameters_and_facts_have_a_source(robot):
    parameters, text = parameters_of(robot), (FOLDER / f"{robot}.yaml").read_text()
    assert set(parameters) - {"camera"} <= {row.name for row in TABLE}
    assert set(parameters["camera"]) <= {row.name for row in CAMERA_TABLE}
    for name in ("image", "camera_info", "compressed"):
        assert parameters["camera"].get(name, "/x").startswith("/")
    assert "\n# Source: " in text
    assert parameters["model"].startswith("v2_metric")
    shown = yaml.safe_load(text)["depth_rviz"]["ros__parameters"]["fixed_frame"]
    assert shown == (DRIVERS[robot].out or DRIVERS[robot].frame)


@pytest.mark.parametrize("robot", DRIVERS)
def test_camera_to_depth(robot, tmp_path):
    """Depth, calibration and cloud come out of the node that was started with nothing but the preset and a small model."""
    with DepthProcess(tmp_path, "--params-file", str(FOLDER / f"{robot}.yaml"), *SMALL) as node, bench() as it:
        camera = StandIn(it, DRIVERS[robot])
        it.wait_ready()
        camera.wait_read()
        camera.expect_depth()
        assert "Traceback" not in node.log and "refused" not in node.log


@pytest.mark.parametrize("robot", [robot for robot, driver in DRIVERS.items() if driver.compressed])
def test_compressed_topics_with_names_of_their_own(robot, tmp_path):
    driver = DRIVERS[robot]
    with DepthProcess(tmp_path, "--params-file", str(FOLDER / f"{robot}.yaml"), *SMALL), bench() as it:
        images = it.node.create_publisher(CompressedImage, driver.compressed, 1)
        it.wait_ready()
        it.wait(lambda: images.get_subscription_count(), "a reader")
        message = CompressedImage(format="jpeg")
        message.header.frame_id = driver.frame
        message.header.stamp.sec = 5
        message.data.frombytes(cv2.imencode(".jpg", picture())[1].tobytes())
        for _ in range(20):
            images.publish(message)
            it.spin(0.3)
            if it.received["depth/image"]:
                break
        assert stamp_of(it.received["depth/image"][-1]) == 5 * 10**9
