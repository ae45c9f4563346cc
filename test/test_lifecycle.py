# SPDX-License-Identifier: Apache-2.0
"""How the node starts, changes and fails: transitions, checks before anything is published, relative models, determinism."""

import contextlib

import pytest
import torch
from lifecycle_msgs.msg import Transition
from published import random_state_dict
from ros import OUTPUTS, DepthProcess, bench, depth_of, picture, stamp_of
from sensor_msgs.msg import CameraInfo


@pytest.fixture(scope="module")
def vits(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "vits.pth"
    torch.save(random_state_dict("vits"), path)
    return path


def ready(it):
    it.wait_ready()
    it.wait_subscribed()
    it.wait_subscribed(CameraInfo, "camera_info")


def test_a_manager_can_drive_every_transition(tmp_path):
    with DepthProcess(tmp_path, model="demo", autostart=False) as node, bench() as it:
        assert it.state() == "unconfigured"
        it.wait(lambda: "not active (unconfigured)" in it.message, "a status before configure")
        assert it.change_state(Transition.TRANSITION_CONFIGURE) and it.state() == "inactive"
        for _ in range(2):
            assert it.change_state(Transition.TRANSITION_ACTIVATE) and it.state() == "active"
            ready(it)
            it.expect("depth/points", it.send(picture()))
            assert it.change_state(Transition.TRANSITION_DEACTIVATE) and it.state() == "inactive"
            silent = it.send(picture())
            it.spin(0.5)
            assert all(stamp_of(m) != silent for m in it.received["depth/image"])
        assert it.change_state(Transition.TRANSITION_CLEANUP) and it.state() == "unconfigured"
        assert it.set_parameters(input_size=208) == (True, "")
        assert it.change_state(Transition.TRANSITION_CONFIGURE) and it.change_state(Transition.TRANSITION_ACTIVATE)
        ready(it)
        it.expect("depth/image", it.send(picture()))
        it.wait(lambda: it.values["input size"] == "208", "what was set before configure")
        assert it.change_state(Transition.TRANSITION_ACTIVE_SHUTDOWN) and it.state() == "finalized"
        assert node.alive and "Traceback" not in node.log
        assert node.stop() == 0


@pytest.mark.parametrize(
    "parameters, text",
    [
        ({"model": "v2", "checkpoint": "/no/such/file.pth"}, "checkpoint '/no/such/file.pth' does not exist"),
        ({"model": "v2", "encoder": "vitb"}, "CC-BY-NC-4.0: no commercial use. Set allow_noncommercial to true"),
        ({"model": "deep_sea"}, "model is 'deep_sea', expected one of: v1, v2"),
        ({"model": "demo", "device": "cuda:77"}, "device 'cuda:77' is not available"),
    ],
)
def test_what_can_be_checked_at_once_ends_the_process_with_one_line(tmp_path, parameters, text):
    node = DepthProcess(tmp_path, **parameters)
    assert node.process.wait(30) == 1
    assert text in node.log and "Traceback" not in node.log


@pytest.mark.parametrize("damage", ["truncated", "other encoder", "no network"])
def test_what_shows_only_later_deactivates_the_node_and_says_why(tmp_path, vits, damage):
    parameters, text = {"model": "v2", "checkpoint": str(tmp_path / "file.pth")}, "is damaged or incomplete"
    content = vits.read_bytes()
    (tmp_path / "file.pth").write_bytes(content[: len(content) // 2] if damage == "truncated" else content)
    if damage == "other encoder":
        parameters |= {"encoder": "vitb", "allow_noncommercial": True}
        text = "holds the weights of encoder 'vits', but 'vitb' was asked for"
    elif damage == "no network":
        parameters, text = {"model": "v2_metric_indoor"}, "depth_anything_v2_metric_hypersim_vits.pth"
    with DepthProcess(tmp_path, **parameters) as node, bench() as it:
        it.wait(lambda: it.status and it.status.level == b"\x02", "an error status")
        it.wait(lambda: text in it.message, text)
        it.wait(lambda: it.state() == "inactive", "deactivation")
        assert node.alive and text in node.log and "Traceback" not in node.log
        assert not it.change_state(Transition.TRANSITION_ACTIVATE)  # still broken
        assert it.set_parameters(model="demo", encoder="", checkpoint="") == (True, "")
        it.wait(lambda: it.values.get("network") == "ready", "the network that was asked for instead")
        assert it.change_state(Transition.TRANSITION_ACTIVATE)
        ready(it)
        it.expect("depth/image", it.send(picture()))


def test_relative_output_is_never_published_as_metres(tmp_path, vits):
    with DepthProcess(tmp_path, model="v2", checkpoint=vits, input_size=112) as node, bench() as it:
        ready(it)
        stamp = it.send(picture())
        relative = it.expect("depth/relative", stamp)
        assert relative.encoding == "32FC1" and depth_of(relative).min() >= 0
        it.expect("depth/color", stamp)
        it.expect("depth/camera_info", stamp)
        it.spin(0.5)
        for topic in ("depth/image", "depth/image_raw", "depth/points"):
            assert it.received[topic] == []
        assert "has no metres" in node.log and "licence Apache-2.0" in node.log


def test_another_encoder_takes_over_without_a_gap_longer_than_one_frame(tmp_path, vits):
    """From the embedded model to a real ViT-S, loaded beside it."""
    with DepthProcess(tmp_path, model="demo") as node, bench() as it:
        ready(it)
        it.expect("depth/image", it.send(picture()))
        sent = []
        for step in range(30):
            if step == 5:
                assert it.set_parameters(model="v2_metric_indoor", encoder="vits", checkpoint=str(vits), input_size=112)[0]
            sent.append(it.send(picture()))
            it.spin(0.4)
        it.wait(lambda: it.values["encoder"] == "vits", "the new encoder")
        got = {stamp_of(message) for message in it.received["depth/image"]}
        served = "".join("x" if stamp in got else "." for stamp in sent)
        assert ".." not in served, served
        assert "running v2_metric_indoor/vits, input size 112" in node.log


def test_without_camera_info_there_is_depth_but_no_cloud_and_diagnostics_say_why(tmp_path):
    with DepthProcess(tmp_path, model="demo"), bench() as it:
        it.wait(lambda: it.values.get("network") == "ready", "network ready")  # the node was there before any camera
        it.wait_subscribed()
        it.expect("depth/image", it.send(picture(), info=False))
        it.wait(lambda: "no camera_info on '/camera_info' yet; without it there is no depth/camera_info and no depth/points"
                in it.values["last error"], "the reason in diagnostics")  # fmt: skip
        assert it.received["depth/points"] == [] and it.received["depth/camera_info"] == []
        it.wait_subscribed(CameraInfo, "camera_info")
        it.expect("depth/points", it.send(picture()))


def test_remapping_the_image_takes_camera_info_along(tmp_path):
    remaps = ("-r", "image:=/robot/camera/color/image_raw", "-r", "__ns:=/eyes")
    with DepthProcess(tmp_path, *remaps, model="demo"), bench(listen=()) as it:
        it.wait(lambda: it.values.get("image topic") == "/robot/camera/color/image_raw", "diagnostics")
        assert it.values["camera_info topic"] == "/robot/camera/color/camera_info"
        assert "/eyes/depth/points" in dict(it.node.get_topic_names_and_types())


def test_deterministic_runs_give_the_same_bytes(tmp_path):
    results = []
    for run in ("first", "second"):
        (tmp_path / run).mkdir()
        with DepthProcess(tmp_path / run, model="demo", deterministic=True), bench() as it:
            ready(it)
            stamps = [it.send(picture(seed=1), stamp=10**9 * 7)]
            results.append(
                [bytes(it.expect(topic, stamps[0]).data) for topic in ("depth/image", "depth/points", "depth/color")]
            )
    assert results[0] == results[1]


def test_a_user_can_insist_on_a_reliability(tmp_path):
    """The standard parameter overrules what the camera offers; a mismatch is told in diagnostics."""
    override = {"qos_overrides./image.subscription.reliability": "reliable"}
    with DepthProcess(tmp_path, model="demo", **override), bench() as it:
        it.wait_ready()
        it.publisher(CameraInfo, "camera_info", reliable=False)
        it.send(picture(), info=False, reliable=False)
        it.wait(lambda: "'/image' is offered best effort" in it.values.get("qos mismatch", ""), "the mismatch")
        assert it.status.level == b"\x01"
        it.remove_cameras()
        it.wait_subscribed()
        it.wait(lambda: it.values.get("qos mismatch") == "", "an end of the mismatch")
        it.expect("depth/image", it.send(picture(), info=False))


def test_an_output_override_changes_that_output_only(tmp_path):
    override = {"qos_overrides./depth/image.publisher.reliability": "best_effort"}
    with DepthProcess(tmp_path, model="demo", **override), bench(listen=()) as it:
        it.wait_ready()
        offered = {t: it.node.get_publishers_info_by_topic(t)[0].qos_profile.reliability.name for t in OUTPUTS}
    assert offered.pop("depth/image") == "BEST_EFFORT" and set(offered.values()) == {"RELIABLE"}


@pytest.mark.parametrize(
    "parameters, text",
    [
        ({"qos_overrides./image.subscription.reliability": "bogus"}, "reliability 'bogus'"),
        ({"qos_overrides./depth/image.publisher.reliability": "bogus"}, "on_configure failed"),
        ({"max_depth": 10}, "max_depth"),
    ],
)
def test_wrong_overrides_end_the_process_with_a_line_that_says_so(tmp_path, parameters, text):
    node = DepthProcess(tmp_path, model="demo", **parameters)
    assert node.process.wait(30) == 1
    assert text in node.log and "Traceback" not in node.log


def test_the_house_is_kept_while_simulated_time_stands_still(tmp_path):
    with DepthProcess(tmp_path, model="demo", use_sim_time=True), bench() as it:
        ready(it)
        it.expect("depth/points", it.send(picture()))


def test_requests_that_the_state_does_not_allow_are_refused_and_survived(tmp_path):
    with DepthProcess(tmp_path, model="demo") as node, bench() as it:
        ready(it)
        with contextlib.suppress(AssertionError):  # Humble and Jazzy do not answer such a request
            assert not it.change_state(Transition.TRANSITION_ACTIVATE, seconds=3)
        it.expect("depth/image", it.send(picture()))
        assert node.alive


def test_the_calibration_of_a_camera_that_is_gone_is_not_used_for_the_next_one(tmp_path):
    with DepthProcess(tmp_path, model="demo"), bench() as it:
        ready(it)
        it.expect("depth/points", it.send(picture()))
        it.remove_cameras()
        it.wait_subscribed(reliable=False)
        it.wait(lambda: it.node.count_publishers("camera_info") == 0, "the old camera_info gone")
        it.spin(0.5)
        stamp = it.send(picture(), info=False, reliable=False)
        it.wait(
            lambda: "no camera_info" in it.values["last error"] or not it.send(picture(), info=False, reliable=False), "why"
        )
        assert all(stamp_of(message) < stamp for message in it.received["depth/points"])
