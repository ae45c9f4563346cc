# SPDX-License-Identifier: Apache-2.0
"""depth_bag: every image of a bag has exactly one depth, nothing else is changed, and no interruption costs anything."""

import json
import shutil
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from bags import (
    DEMO,
    DEPTH,
    FRAME,
    IMAGE,
    INFO,
    POINTS,
    QUICK,
    START,
    STORE,
    camera_messages,
    cdr_of,
    counts,
    digest,
    header_of,
    image_of,
    messages_on,
    read_bag,
    write_bag,
)
from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message
from ros import DepthProcess, bench, camera_info, depth_of, picture, qos, stamp_of
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import Reader
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, LaserScan, PointCloud2

from depth_anything_ros.demo.sources import render_scenes
from depth_anything_ros.depth_bag import main
from depth_anything_ros.replay.parameters import read_file, settings_from


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return write_bag(tmp_path_factory.mktemp("in") / "bag", camera_messages(frames=12))


def test_every_image_has_one_depth_with_its_stamp_and_nothing_else_is_changed(bag, tmp_path):
    before = digest(bag)
    out = tmp_path / "out"
    assert main([str(bag), str(out), *QUICK, "--topics", "depth/image,depth/camera_info,depth/points"]) == 0
    assert digest(bag) == before
    made = read_bag(out)
    assert [each for each in made if not each[0].startswith("/depth_anything")] == read_bag(bag)
    images = messages_on(bag, IMAGE, Image)
    for topic, kind in ((DEPTH, Image), ("/depth_anything/depth/camera_info", CameraInfo), (POINTS, PointCloud2)):
        depths = messages_on(out, topic, kind)
        assert [(t, stamp_of(m), m.header.frame_id) for t, m in depths] == [
            (t, stamp_of(m), m.header.frame_id) for t, m in images
        ]
    _, first = messages_on(out, DEPTH, Image)[0]
    assert (first.encoding, first.width, first.height) == ("32FC1", 160, 120)
    assert np.nanmin(depth_of(first)) > 0
    _, info = messages_on(out, "/depth_anything/depth/camera_info", CameraInfo)[0]
    assert list(info.k) == list(camera_info(header_of(START), 160, 120).k)
    assert not list(tmp_path.glob("*.partial"))


def test_metres_are_those_of_the_scene(tmp_path):
    shots = render_scenes(7000, 1, 4, 320, 240, progress=lambda done, total: None)
    messages = []
    for k, shot in enumerate(shots):
        stamp = START + k * 10**8
        info = camera_info(header_of(stamp), 320, 240)
        info.k[0] = info.k[4] = info.p[0] = info.p[5] = shot.focal
        messages += [(INFO, stamp, info), (IMAGE, stamp + 1, image_of(shot.rgb, stamp))]
    bag = write_bag(tmp_path / "bag", messages)
    assert main([str(bag), str(tmp_path / "out"), *DEMO]) == 0
    errors = []
    for (_, message), shot in zip(messages_on(tmp_path / "out", DEPTH, Image), shots):
        depth = depth_of(message)
        both = np.isfinite(depth) & np.isfinite(shot.depth)
        assert both.mean() > 0.5
        errors.append(np.mean(np.abs(depth[both] - shot.depth[both]) / shot.depth[both]))
    assert np.mean(errors) < 0.3  # depth in other units, or of another image, is off by more than half


def test_the_same_again_is_the_same_to_the_byte(bag, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        assert main([str(bag), str(tmp_path / name / "out"), *QUICK, "--topics", "depth/image,depth/color"]) == 0
    assert digest(tmp_path / "one" / "out") == digest(tmp_path / "two" / "out")


@pytest.mark.parametrize(
    "storage, compression", [("sqlite3", "none"), ("mcap", "storage"), ("sqlite3", "message"), ("mcap", "file")]
)
def test_every_kind_of_bag_gives_the_same(storage, compression, bag, tmp_path):
    given = write_bag(tmp_path / "in", camera_messages(frames=4), storage, compression)
    assert main([str(given), str(tmp_path / "out"), *QUICK]) == 0
    assert (
        yaml.safe_load((tmp_path / "out" / "metadata.yaml").read_text())["rosbag2_bagfile_information"]["storage_identifier"]
        == storage
    )
    plain = write_bag(tmp_path / "plain", camera_messages(frames=4))
    other = "mcap" if storage == "sqlite3" else "sqlite3"
    assert main([str(plain), str(tmp_path / "other"), *QUICK, "--storage", other, "--compress"]) == 0
    assert read_bag(tmp_path / "out") == read_bag(tmp_path / "other")
    assert counts(tmp_path / "out")[DEPTH] == 4


def test_a_single_file_and_a_folder_without_metadata_are_bags_too(bag, tmp_path):
    shutil.copytree(bag, tmp_path / "bare")
    (tmp_path / "bare" / "metadata.yaml").unlink()
    for number, given in enumerate((bag / "bag.mcap", tmp_path / "bare")):
        assert main([str(given), str(tmp_path / f"out{number}"), *QUICK]) == 0
        assert counts(tmp_path / f"out{number}")[DEPTH] == 12


def test_a_ros_1_bag_is_read_too(tmp_path):
    from rosbags.rosbag1 import Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS1_NOETIC)
    header = store.types["std_msgs/msg/Header"]
    with Writer(tmp_path / "old.bag") as writer:
        connection = writer.add_connection(IMAGE, "sensor_msgs/msg/Image", typestore=store)
        for k in range(3):
            stamp = store.types["builtin_interfaces/msg/Time"](1_700_000_000 + k, 5)
            pixels = picture(160, 120, k)
            message = store.types["sensor_msgs/msg/Image"](
                header(k, stamp, FRAME), 120, 160, "rgb8", 0, 480, pixels.reshape(-1)
            )
            time_ns = (1_700_000_000 + k) * 10**9 + 5
            writer.write(connection, time_ns, store.serialize_ros1(message, "sensor_msgs/msg/Image"))
    assert main([str(tmp_path / "old.bag"), str(tmp_path / "out"), *QUICK, "--topics", "depth/image"]) == 0
    depths = messages_on(tmp_path / "out", DEPTH, Image)
    assert [m.header.stamp for _, m in depths] == [Time(sec=1_700_000_000 + k, nanosec=5) for k in range(3)]
    assert [t for t, _ in depths] == [(1_700_000_000 + k) * 10**9 + 5 for k in range(3)]


def test_what_is_asked_for_and_no_more(bag, tmp_path):
    words = ["--only-depth", "--every", "3", "--start", "0.15", "--end", "0.95", "--namespace", "robot/depth"]
    assert main([str(bag), str(tmp_path / "out"), *QUICK, *words, "--topics", "depth/image"]) == 0
    # Recorded 3 ms after 0.0, 0.1, ... s, the bag beginning 1 ms after 0: of 0.2 to 0.9 s, the first, fourth and seventh.
    assert [(topic, t - START) for topic, t, _ in read_bag(tmp_path / "out")] == [
        ("/robot/depth/depth/image", (2 + 3 * k) * 10**8 + 3_000_000) for k in range(3)
    ]


def test_a_recording_of_a_camera_driver_gets_depth_for_every_image(tmp_path):
    """camera_player in a process of its own, recorded as it comes over DDS."""
    topics = {"camera/image_raw": Image, "camera/camera_info": CameraInfo}
    with bench(listen=()) as it:
        recorded = []
        for topic, kind in topics.items():
            name = f"/{topic}"

            def record(cdr, name=name, kind=kind):
                recorded.append((name, time.time_ns(), deserialize_message(cdr, kind)))

            it.node.create_subscription(kind, name, record, qos(depth=50), raw=True)
        words = {"scenes": 1, "frames": 15, "width": 160, "height": 120, "loop": False, "wait_for_reader": True, "rate": 30.0}
        command = ("-m", "depth_anything_ros.node.camera_player")
        with DepthProcess(tmp_path, command=command, **{name: value for name, value in words.items()}) as player:
            it.wait(lambda: not player.alive, "the end of the player", 30)
        it.spin(0.2)
    bag = write_bag(tmp_path / "bag", recorded)
    assert counts(bag)["/camera/image_raw"] == 15
    assert main([str(bag), str(tmp_path / "out"), *QUICK]) == 0
    stamps = [stamp_of(message) for _, message in messages_on(bag, "/camera/image_raw", Image)]
    assert [stamp_of(message) for _, message in messages_on(tmp_path / "out", DEPTH, Image)] == stamps


def test_a_real_video_gets_depth_for_every_frame(data, tmp_path):
    film, messages = cv2.VideoCapture(str(data / "video" / "robot_unitree.mp4")), []
    while (shot := film.read())[0]:
        stamp = START + round(len(messages) * 1e9 / 30)
        jpeg = cv2.imencode(".jpg", shot[1])[1].tobytes()
        messages.append((f"{IMAGE}/compressed", stamp, CompressedImage(header=header_of(stamp), format="jpeg", data=jpeg)))
    bag = write_bag(tmp_path / "bag", messages)
    assert main([str(bag), str(tmp_path / "out"), *QUICK, "--topics", "depth/image_raw", "--compress"]) == 0
    depths = [(t, m) for t, m in messages_on(tmp_path / "out", "/depth_anything/depth/image_raw", Image)]
    assert len(messages) > 170
    assert [(t, stamp_of(m)) for t, m in depths] == [(t, t) for _, t, _ in messages]
    assert {(m.width, m.height, m.encoding) for _, m in depths} == {(1024, 576, "16UC1")}


def test_depth_that_is_in_the_bag_already_is_replaced(bag, tmp_path):
    words = [*QUICK, "--topics", "depth/image,depth/color"]
    assert main([str(bag), str(tmp_path / "first"), *words, "-p", "max_depth:=3.0"]) == 0
    assert main([str(tmp_path / "first"), str(tmp_path / "again"), *words]) == 0
    assert main([str(bag), str(tmp_path / "once"), *words]) == 0
    assert sorted(read_bag(tmp_path / "again")) == sorted(read_bag(tmp_path / "once"))


def test_film_and_report_of_a_part_show_that_part(bag, tmp_path):
    film, report = tmp_path / "film.mp4", tmp_path / "report.html"
    words = ["--only-depth", "--start", "0.15", "--end", "0.75", "--preview", str(film), "--report", str(report)]
    assert main([str(bag), str(tmp_path / "out"), *QUICK, *words]) == 0
    assert counts(tmp_path / "out")[DEPTH] == 6  # of the 12 images, 0.1 s apart
    assert int(cv2.VideoCapture(str(film)).get(cv2.CAP_PROP_FRAME_COUNT)) == 6
    assert "6 of 6" in report.read_text()


def test_large_bags_go_on_in_further_files(bag, tmp_path):
    assert main([str(bag), str(tmp_path / "whole"), *QUICK]) == 0
    assert main([str(bag), str(tmp_path / "split"), *QUICK, "--split-size", "300k"]) == 0
    assert len(list((tmp_path / "split").glob("split_*.mcap"))) > 3
    assert read_bag(tmp_path / "split") == read_bag(tmp_path / "whole")
    with Reader(tmp_path / "split") as split, Reader(tmp_path / "whole") as whole:  # what metadata.yaml says
        assert (split.message_count, split.start_time, split.end_time) == (
            whole.message_count,
            whole.start_time,
            whole.end_time,
        )
        assert {c.topic: c.msgcount for c in split.connections} == counts(tmp_path / "whole")


def test_qos_of_the_input_is_kept_and_ours_is_recorded(tmp_path):
    forever = QosTime(9223372036, 854775807)
    offered = Qos(
        QosHistory.KEEP_LAST,
        7,
        QosReliability.BEST_EFFORT,
        QosDurability.VOLATILE,
        forever,
        forever,
        QosLiveliness.AUTOMATIC,
        forever,
        False,
    )
    bag = write_bag(tmp_path / "in", camera_messages(frames=1), qos=(offered,))
    assert main([str(bag), str(tmp_path / "out"), *QUICK]) == 0
    with Reader(tmp_path / "out") as reader:
        found = {connection.topic: connection.ext.offered_qos_profiles[0] for connection in reader.connections}
    assert found[IMAGE] == offered
    assert (found[DEPTH].reliability, found[DEPTH].depth) == (QosReliability.RELIABLE, 1)


def test_several_cameras_each_get_theirs_and_compressed_images_are_read(tmp_path):
    messages = []
    for k in range(3):
        stamp = START + k * 10**8
        ok, jpeg = cv2.imencode(".jpg", picture(96, 64, k))
        message = CompressedImage(header=header_of(stamp, "rear_optical_frame"), format="jpeg", data=jpeg.tobytes())
        messages.append(("/rear/image_raw/compressed", stamp + 5, message))
        messages.append(("/front/image_raw", stamp + 6, image_of(picture(160, 120, k), stamp)))
        messages.append(("/front/depth/image_raw", stamp + 7, image_of(np.ones((4, 4), np.uint16), stamp, "16UC1")))
    bag = write_bag(tmp_path / "in", messages)
    assert main([str(bag), str(tmp_path / "out"), *QUICK, "--topics", "depth/image"]) == 0
    found = counts(tmp_path / "out")
    assert (found["/depth_anything/front/depth/image"], found["/depth_anything/rear/depth/image"]) == (3, 3)
    assert sum(found.values()) == 9 + 6
    _, rear = messages_on(tmp_path / "out", "/depth_anything/rear/depth/image", Image)[0]
    assert (rear.width, rear.height, rear.header.frame_id) == (96, 64, "rear_optical_frame")


def test_one_bad_image_costs_one_depth_and_is_said(tmp_path, capsys):
    messages = list(camera_messages(frames=5))
    spoilt = next(m for topic, t, m in messages[6:] if topic == IMAGE)
    spoilt.step = 3
    bag = write_bag(tmp_path / "in", messages)
    assert main([str(bag), str(tmp_path / "out"), *QUICK]) == 3
    assert counts(tmp_path / "out")[DEPTH] == 4
    assert counts(tmp_path / "out")[IMAGE] == 5
    said = capsys.readouterr().err
    assert "4 of 5 images have depth" in said
    assert "bad image (1 times): step is 3 bytes" in said


def test_calibration_transforms_and_points_are_taken_from_the_bag(tmp_path, capsys):
    """The scale by a laser whose wall is at 3 m, mounted 0.2 m before the camera by the bag's own tf_static."""
    from rosbags.rosbag2 import StoragePlugin, Writer

    types = STORE.types
    transform = types["geometry_msgs/msg/TransformStamped"](
        types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](0, 0), FRAME),
        "laser",
        types["geometry_msgs/msg/Transform"](
            types["geometry_msgs/msg/Vector3"](0.0, 0.0, 0.2), types["geometry_msgs/msg/Quaternion"](0.5, -0.5, 0.5, 0.5)
        ),
    )  # x of the laser is z of the optical frame
    with Writer(tmp_path / "in", version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        tf = writer.add_connection("/tf_static", "tf2_msgs/msg/TFMessage", typestore=STORE)
        writer.write(tf, START - 5, STORE.serialize_cdr(types["tf2_msgs/msg/TFMessage"]([transform]), "tf2_msgs/msg/TFMessage"))
        connections = {}
        for topic, time_ns, message in camera_messages(frames=3):
            if topic == "/chatter":
                topic, angles = "/scan", np.linspace(-0.4, 0.4, 81)
                message = LaserScan(header=header_of(time_ns, "laser"), range_max=20.0)
                message.angle_min, message.angle_increment = float(angles[0]), float(angles[1] - angles[0])
                message.ranges = (2.8 / np.cos(angles)).tolist()  # a wall 2.8 m before the laser: 3 m before the camera
            kind = f"sensor_msgs/msg/{type(message).__name__}"
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=STORE)
            writer.write(connections[topic], time_ns, cdr_of(message))
    words = ["-p", "scale.source:=sparse", "-p", "scale.max_residual:=1.0", "-p", "edges.tolerance:=0.0", "-p"]
    assert main([str(tmp_path / "in"), str(tmp_path / "out"), *QUICK, *words, "scale.topic:=/scan"]) == 0
    depth = depth_of(messages_on(tmp_path / "out", DEPTH, Image)[0][1])
    k = camera_info(header_of(START), 160, 120).k  # the row of pixels that the scan is seen in
    assert np.nanmedian(depth[round(k[5]), 100:120]) == pytest.approx(3.0, rel=0.25)
    assert main([str(tmp_path / "in"), str(tmp_path / "none"), *QUICK, *words, "scale.topic:=/nothing"]) == 3
    assert "no scale (3 times): '/nothing' is not in the bag" in capsys.readouterr().err
    assert counts(tmp_path / "none")[DEPTH] == 0


# -- what it is told ------------------------------------------------------------------------------------------------


def test_a_parameter_file_means_what_it_means_to_the_node(tmp_path):
    defaults = Path(__file__).resolve().parent.parent / "config" / "depth.yaml"
    assert settings_from(read_file(defaults), [""])[0].values == settings_from({}, [""])[0].values
    for preset in (defaults.parent / "robots").glob("*.yaml"):
        settings, unknown = settings_from(read_file(preset), [""])
        assert not unknown, preset
        said = yaml.safe_load(preset.read_text())["/**"]["ros__parameters"]
        assert settings.cameras[""].image == said["camera"]["image"]
    other = tmp_path / "other.yaml"
    tree = {"/robot": {"depth_node": {"ros__parameters": {"max_depth": 7.0, "color": {"map": "bone"}, "nonsense": 1}}}}
    other.write_text(json.dumps(tree | {"other_node": {"ros__parameters": {"max_depth": 3.0}}}))
    settings, unknown = settings_from(read_file(other), [""])
    assert (settings.refine.depth.far, settings.outputs.color.colormap, unknown) == (7.0, "bone", ["nonsense"])


@pytest.mark.parametrize(
    "words, said",
    [
        (["-p", "max_depth:=far"], "max_depth is 'far', expected a value like 0.0"),
        (["-p", "max_depth:=-1.0"], "max_depth is -1.0, expected 0 to 1000"),
        (["-p", "model:=nothing"], "model is 'nothing'"),
        (["-p", "model=demo"], "expected name:=value"),
        (["--image", "/nothing"], "'/nothing' is not in the bag; its image topics are: /camera/color/image_raw"),
        (["--image", "/chatter"], "'/chatter' is a std_msgs/msg/String"),
        (["--image", IMAGE, "--camera-info", "/nothing"], "its camera_info topics are: /camera/color/camera_info"),
        (["--topics", "depth/nothing"], "no such output: depth/nothing"),
        (["--start", "100"], "the bag is 1.1 s long"),
        (["--preset", "nothing"], "no preset 'nothing'; there are: "),
        (["--params-file", "/nothing.yaml"], "cannot be read"),
        (["-p", "modle:=demo"], "there is no parameter modle: did you mean model?"),
        (["-p", "camrea.rotation:=180"], "there is no parameter camrea.rotation: did you mean camera.rotation"),
        (["--start", "4", "--end", "2"], "--end 2 is not after --start 4"),
        (["--preview", "film.avi"], "expected a name that ends in .mp4"),
        (["--every", "0"], "--every is 0, expected 1 at least"),
        (["--start", "inf"], "--start is inf, expected seconds"),
        (["--start", "nan"], "--start is nan, expected seconds"),
        (["--end", "-1"], "--end is -1, expected seconds"),
        (["--namespace", "my ns/left"], "'my ns' is no name of letters, digits and _"),
        (["--namespace", "1/2//3"], "'1' is no name of"),
        (["--topics", "depth/image,depth/scale"], "there can be no depth/scale: scale.source is none"),
        (["--topics", "depth/confidence"], "there can be no depth/confidence: confidence.enabled is false"),
        (["--topics", "depth/relative"], "there can be no depth/relative: model 'demo' says metres"),
        (["--topics", "depth/points", "-p", "model:=v2"], "there can be no depth/points: model 'v2' says nothing of metres"),
    ],
)
def test_bad_usage_is_said_before_anything_is_written(words, said, bag, tmp_path, capsys):
    assert main([str(bag), str(tmp_path / "out"), "--quiet", "-p", "model:=demo", *words]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_is_no_bag_is_said(tmp_path, capsys):
    (tmp_path / "text.txt").write_text("nothing")
    (tmp_path / "folder").mkdir()
    (tmp_path / "broken.mcap").write_bytes(b"nothing")
    for name, said in (
        ("missing", "there is no bag"),
        ("text.txt", "expected a folder, .mcap, .db3 or .bag"),
        ("folder", "there is no .mcap and no .db3 in it"),
        ("broken.mcap", "nothing can be read"),
    ):
        assert main([str(tmp_path / name), str(tmp_path / "out"), *QUICK]) == 2
        assert said in capsys.readouterr().err
