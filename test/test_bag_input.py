# SPDX-License-Identifier: Apache-2.0
"""Bags as they come: with a log beside them, half described, with clocks that jump. Nothing is lost without a word."""

import shutil
import sqlite3

import cv2
import numpy as np
import pytest
from bags import (
    DEPTH,
    FRAME,
    IMAGE,
    QUICK,
    START,
    STORE,
    camera_messages,
    cdr_of,
    counts,
    header_of,
    image_of,
    read_bag,
    write_bag,
)
from ros import picture
from rosbags.rosbag2 import StoragePlugin, Writer
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Int32, String

from depth_anything_ros.depth_bag import main
from depth_anything_ros.replay.bag_input import BagInput
from depth_anything_ros.replay.cameras import find_cameras
from depth_anything_ros.replay.feed import LOOK_AHEAD_NS, Context, looked_ahead
from depth_anything_ros.replay.messages import Recorded
from depth_anything_ros.stream.transforms import parse_transforms


def test_what_a_killed_recorder_left_in_sqlites_log_is_read(tmp_path):
    whole = write_bag(tmp_path / "whole", camera_messages(frames=12), "sqlite3")
    source = sqlite3.connect(whole / "whole.db3")
    (tmp_path / "bag").mkdir()
    live = sqlite3.connect(tmp_path / "live.db3", isolation_level=None)
    live.execute("PRAGMA journal_mode=WAL")
    live.execute("PRAGMA wal_autocheckpoint=0")
    rows = list(source.execute("SELECT * FROM messages"))
    for line in source.iterdump():
        if not line.startswith(('INSERT INTO "messages"', "BEGIN", "COMMIT")):
            live.execute(line)
    live.executemany("INSERT INTO messages VALUES (?, ?, ?, ?)", rows[:18])
    live.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    live.executemany("INSERT INTO messages VALUES (?, ?, ?, ?)", rows[18:])
    for name in ("live.db3", "live.db3-wal"):  # as they lie there at the moment of the kill
        shutil.copy(tmp_path / name, tmp_path / "bag" / name)
    live.close()
    before = (tmp_path / "bag" / "live.db3").read_bytes()
    assert [(m.topic, m.time_ns, m.cdr) for m in BagInput(tmp_path / "bag").messages()] == read_bag(whole)
    assert (tmp_path / "bag" / "live.db3").read_bytes() == before


def test_messages_that_are_compressed_each_are_read_without_metadata_too(tmp_path):
    bag = write_bag(tmp_path / "bag", camera_messages(frames=3), "sqlite3", "message")
    (bag / "metadata.yaml").unlink()
    found = BagInput(bag)
    assert [(m.topic, m.time_ns, m.cdr) for m in found.messages()] == read_bag(
        write_bag(tmp_path / "plain", camera_messages(frames=3))
    )
    assert "metadata.yaml cannot be read" in found.damage[0]


def test_files_that_the_metadata_does_not_know_are_named(tmp_path):
    bag = write_bag(tmp_path / "bag", camera_messages(frames=3))
    shutil.copy(bag / "bag.mcap", bag / "bag_1.mcap")
    assert BagInput(bag).damage == ["metadata.yaml does not name, so that they are left out: bag_1.mcap"]


def test_a_second_type_on_a_topic_is_left_out_and_said(tmp_path, capsys):
    with Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        for kind, messages in ((String, [String(data="text")]), (Int32, [Int32(data=k) for k in range(2)])):
            connection = writer.add_connection("/x", f"std_msgs/msg/{kind.__name__}", typestore=STORE)
            for k, message in enumerate(messages):
                writer.write(connection, START + k, cdr_of(message))
        connection = writer.add_connection(IMAGE, "sensor_msgs/msg/Image", typestore=STORE)
        writer.write(connection, START + 5, cdr_of(image_of(picture(160, 120), START)))
    assert main([str(tmp_path / "bag"), str(tmp_path / "out"), *QUICK]) == 0
    assert [cdr for topic, _, cdr in read_bag(tmp_path / "out") if topic == "/x"] == [cdr_of(String(data="text"))]
    assert "'/x': 2 messages of std_msgs/msg/Int32 in cdr are left out" in capsys.readouterr().err


def test_a_clock_that_is_set_back_holds_nothing_back():
    times = [START + k * 10**7 for k in range(50)] + [START - 10**11 + k * 10**7 for k in range(50)]
    ahead, told, most = [], [], 0
    for recorded in looked_ahead([Recorded("/x", t, b"") for t in times], lambda m: told.append(m.time_ns)):
        ahead.append(recorded.time_ns)
        most = max(most, len(told) - len(ahead))
        later = [t for t in told[len(ahead) :] if t < recorded.time_ns - LOOK_AHEAD_NS]
        assert not later  # nothing of the time after the jump is known yet to what came before it
    assert ahead == told == times
    assert most <= LOOK_AHEAD_NS // 10**7 + 1


def test_one_transform_that_is_none_costs_the_others_nothing(tmp_path):
    types = STORE.types

    def transform(child, w):
        return types["geometry_msgs/msg/TransformStamped"](
            types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](0, 0), "base_link"),
            child,
            types["geometry_msgs/msg/Transform"](
                types["geometry_msgs/msg/Vector3"](1.0, 2.0, 3.0), types["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, w)
            ),
        )

    message = types["tf2_msgs/msg/TFMessage"]([transform("bad", 0.0), transform("good", 1.0)])
    with Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/tf_static", "tf2_msgs/msg/TFMessage", typestore=STORE)
        writer.write(connection, START, STORE.serialize_cdr(message, "tf2_msgs/msg/TFMessage"))
    bag = BagInput(tmp_path / "bag")
    context = Context(bag, [], parse_transforms(["good tip 0 0 1 0 0 0"]))
    for recorded in bag.messages():
        context.add(recorded)
    assert context.lookup("base_link", "tip", START).translation.tolist() == [1, 2, 4]  # the two kinds hang together
    assert any("'bad'" in problem for problem in context.problems)


@pytest.mark.parametrize(
    "topics, names",
    [
        (("/camera/color/image_raw", "/rear/color/image_raw"), ("camera_camera", "rear")),  # camera.* are parameters
        (("/image_raw", "/rear/image_raw"), ("image_raw", "rear")),
        (("/robot/front/image_raw", "/robot/rear/image_raw"), ("robot_front", "robot_rear")),
    ],
)
def test_cameras_are_named_by_what_tells_them_apart(topics, names, tmp_path):
    messages = [(topic, START + k, image_of(picture(64, 48, k), START)) for k, topic in enumerate(topics)]
    bag = write_bag(tmp_path / "bag", messages)
    assert main([str(bag), str(tmp_path / "out"), *QUICK, "--topics", "depth/image"]) == 0
    made = {topic for topic in counts(tmp_path / "out") if topic not in topics}
    assert made == {f"/depth_anything/{name}/depth/image" for name in names}


def test_two_image_topics_of_one_camera_each_get_theirs(tmp_path):
    folder = IMAGE.rpartition("/")[0]
    messages = [(f"{folder}/{name}", START + k, image_of(picture(64, 48, k), START)) for k, name in enumerate(("a", "b"))]
    bag = write_bag(tmp_path / "bag", messages)
    asked = ["--image", f"{folder}/a", "--image", f"{folder}/b", "--topics", "depth/image"]
    assert main([str(bag), str(tmp_path / "out"), *QUICK, *asked]) == 0
    assert sum(count for topic, count in counts(tmp_path / "out").items() if topic.endswith("depth/image")) == 2


def test_pictures_are_told_from_depth_by_what_they_are(tmp_path):
    depth = np.full((48, 64), 1000, np.uint16)
    messages = [
        ("/depth_camera/image_raw", START, image_of(picture(64, 48), START)),
        ("/depth_camera/depth/image_raw", START + 1, image_of(depth, START, "16UC1")),
    ]
    jpeg = cv2.imencode(".png", depth)[1].tobytes()
    compressed = CompressedImage(header=header_of(START, FRAME), format="16UC1; compressedDepth", data=jpeg)
    messages.append(("/depth_camera/depth/image_raw/compressedDepth", START + 2, compressed))
    assert [camera.image for camera in find_cameras(BagInput(write_bag(tmp_path / "bag", messages)))[0]] == [
        "/depth_camera/image_raw"
    ]


# -- what came of it ------------------------------------------------------------------------------------------------


def test_an_image_without_all_that_was_asked_for_counts_as_one_without_depth(tmp_path, capsys):
    bag = write_bag(tmp_path / "bag", camera_messages(frames=2))
    assert main([str(bag), str(tmp_path / "scan"), *QUICK, "--topics", "depth/image,depth/scan"]) == 3
    assert "0 of 2 images have depth" in capsys.readouterr().err
    bare = write_bag(tmp_path / "bare", [each for each in camera_messages(frames=2) if "info" not in each[0]])
    assert main([str(bare), str(tmp_path / "out"), *QUICK]) == 0  # camera_info comes with depth where it can be had
    said = capsys.readouterr().err
    assert "2 of 2 images have depth" in said and "no camera_info (2 times)" in said


def test_nothing_to_write_leaves_nothing_behind(tmp_path, capsys):
    messages = [each for each in camera_messages(frames=40) if not START + 10**9 < each[1] < START + 3 * 10**9]
    bag = write_bag(tmp_path / "bag", messages)
    assert main([str(bag), str(tmp_path / "out"), *QUICK, "--start", "1.5", "--end", "2.5"]) == 2
    assert "there is nothing to write" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bag"]


def test_of_several_bags_a_bad_one_costs_the_others_nothing_and_finished_ones_are_not_made_again(tmp_path, capsys):
    good = [write_bag(tmp_path / name, camera_messages(frames=2)) for name in ("one", "two")]
    (tmp_path / "bad").mkdir()
    words = [str(good[0]), str(tmp_path / "bad"), str(good[1]), str(tmp_path / "out"), *QUICK]
    assert main(words) == 2
    assert "bad: 'bad' is no bag".replace("bad: 'bad'", f"{tmp_path / 'bad'}: '{tmp_path / 'bad'}'") in capsys.readouterr().err
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.mcap")}
    assert len(times) == 2 and all(counts(tmp_path / "out" / name)[DEPTH] == 2 for name in ("one", "two"))
    shutil.rmtree(tmp_path / "out" / "two")
    (tmp_path / "out" / "one.partial").mkdir()  # killed between giving the name and clearing up
    assert main([words[0], *words[2:], "--resume"]) == 0
    assert {path.stat().st_mtime_ns for path in (tmp_path / "out" / "one").glob("*.mcap")} <= set(times.values())
    assert counts(tmp_path / "out" / "two")[DEPTH] == 2 and not (tmp_path / "out" / "one.partial").exists()
    assert main([words[0], words[2], str(tmp_path / "out" / "one"), *QUICK]) == 2  # the folder was forgotten
    assert "is a bag: for several inputs" in capsys.readouterr().err
    assert main([words[0], words[0], *QUICK]) == 2
    assert "is the input" in capsys.readouterr().err
    assert main([words[0], words[2], words[3], *QUICK]) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["lock", "plan.json", "0.json"])
def test_an_output_may_have_any_name(name, tmp_path):
    bag = write_bag(tmp_path / "bag", camera_messages(frames=1))
    assert main([str(bag), str(tmp_path / name), *QUICK]) == 0
    assert counts(tmp_path / name)[DEPTH] == 1
