# SPDX-License-Identifier: Apache-2.0
"""Which topics the node reads and writes, with which QoS, and what it does without a calibration."""

from ros import OUTPUTS, DepthProcess, bench, depth_of, picture, stamp_of
from sensor_msgs.msg import CameraInfo


def test_relative_output_is_never_published_as_metres(tmp_path, vits):
    with DepthProcess(tmp_path, model="v2", checkpoint=vits, input_size=112) as node, bench() as it:
        it.wait_reading()
        stamp = it.send(picture())
        relative = it.expect("depth/relative", stamp)
        assert relative.encoding == "32FC1" and depth_of(relative).min() >= 0
        it.expect("depth/color", stamp)
        it.expect("depth/camera_info", stamp)
        it.spin(0.5)
        for topic in ("depth/image", "depth/image_raw", "depth/points"):
            assert it.received[topic] == []
        assert "has no metres" in node.log and "licence Apache-2.0" in node.log


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


def test_the_house_is_kept_while_simulated_time_stands_still(tmp_path):
    with DepthProcess(tmp_path, model="demo", use_sim_time=True), bench() as it:
        it.wait_reading()
        it.expect("depth/points", it.send(picture()))


def test_the_calibration_of_a_camera_that_is_gone_is_not_used_for_the_next_one(tmp_path):
    with DepthProcess(tmp_path, model="demo"), bench() as it:
        it.wait_reading()
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
