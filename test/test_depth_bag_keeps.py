# SPDX-License-Identifier: Apache-2.0
"""depth_bag loses and replaces nothing that it was not asked to, and says so where there is nothing to be had."""

import shutil
import sqlite3
import sys
from contextlib import closing

import pytest
from bags import (
    DEPTH,
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
    kind_of,
    messages_on,
    read_bag,
    write_bag,
)
from mcap.writer import IndexType
from mcap.writer import Writer as McapWriter
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from std_msgs.msg import String

from depth_anything_ros.depth_bag import main


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return write_bag(tmp_path_factory.mktemp("in") / "bag", camera_messages(frames=12))


def test_what_the_bag_has_is_not_replaced_by_depth_of_the_same_name(tmp_path, capsys):
    """A sensor's own depth/image stays; depth of ours is made anew, which is said."""
    sensor = [("/camera/depth/image", time_ns, message) for topic, time_ns, message in camera_messages(2) if topic == IMAGE]
    bag, out = write_bag(tmp_path / "bag", [*camera_messages(2), *sensor]), tmp_path / "out"
    line = [*QUICK, "--image", IMAGE, "--topics"]
    assert main([str(bag), str(out), *line, "depth/image", "--namespace", "camera"]) == 2
    assert "the bag has /camera/depth/image already: choose another --namespace" in capsys.readouterr().err
    assert main([str(bag), str(out), *line, "depth/image,depth/points,depth/color"]) == 0
    assert main([str(out), str(tmp_path / "again"), *line, "depth/image"]) == 0
    said = capsys.readouterr().err
    assert f"made anew: {DEPTH}; as they were: {DEPTH.replace('image', 'color')}, {POINTS}" in said
    assert counts(tmp_path / "again") == counts(out)
    own = ["--image", DEPTH.replace("image", "color"), "--topics", "depth/color"]
    assert main([str(out), str(tmp_path / "of_itself"), *QUICK, *own]) == 2
    assert "choose another --namespace" in capsys.readouterr().err


def test_an_output_is_never_in_the_input(bag, tmp_path, capsys):
    copy = shutil.copytree(bag, tmp_path / "bag")
    assert main([str(copy), str(copy / "out"), *QUICK]) == 2
    assert "is the input, or lies in it" in capsys.readouterr().err
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert main([str(copy), str(tmp_path / "link"), *QUICK]) == 2
    assert "exists already" in capsys.readouterr().err
    assert digest(copy) == digest(bag)


def test_what_gives_nothing_says_why_and_leaves_nothing(tmp_path, capsys):
    bag = write_bag(tmp_path / "bag", [each for each in camera_messages(2) if each[0] != INFO])
    assert main([str(bag), str(tmp_path / "out"), *QUICK, "--only-depth", "--topics", "depth/points"]) == 2
    said = capsys.readouterr().err
    assert "nothing was made" in said and "no camera_info on" in said
    assert [path.name for path in tmp_path.iterdir()] == ["bag"]
    assert main([str(bag), str(tmp_path / "twice"), *QUICK, "--topics", "depth/image,depth/image"]) == 0
    late = write_bag(tmp_path / "late", [*camera_messages(2), ("/chatter", START + 3 * 10**9, String(data="late"))])
    capsys.readouterr()
    assert main([str(late), str(tmp_path / "out"), *QUICK, "--start", "2"]) == 3
    said = capsys.readouterr().err
    assert "warning: no image of" in said and "complete already" not in said


def test_what_was_latched_before_the_start_comes_at_the_new_beginning(tmp_path):
    forever, bag = QosTime(9223372036, 854775807), tmp_path / "bag"
    history = QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE
    latched = Qos(*history, QosDurability.TRANSIENT_LOCAL, forever, forever, QosLiveliness.AUTOMATIC, forever, False)
    maps = [("/map", START + k, String(data=f"map {k}")) for k in range(3)]
    with Writer(bag, version=8, storage_plugin=StoragePlugin.SQLITE3) as writer:
        known = {}
        for topic, time_ns, message in sorted([*camera_messages(12), *maps], key=lambda each: each[1]):
            if topic not in known:
                qos = [latched] if topic == "/map" else []
                known[topic] = writer.add_connection(topic, kind_of(message), typestore=STORE, offered_qos_profiles=qos)
            writer.write(known[topic], time_ns, cdr_of(message))
    assert main([str(bag), str(tmp_path / "out"), *QUICK, "--start", "0.5"]) == 0
    ((time_ns, message),) = messages_on(tmp_path / "out", "/map", String)
    assert message.data == "map 2" and time_ns == START + 500_000_000
    assert min(time_ns for _, time_ns, _ in read_bag(tmp_path / "out")) == time_ns
    assert main([str(bag), str(tmp_path / "bare"), *QUICK, "--start", "0.5", "--only-depth"]) == 0
    assert "/map" not in counts(tmp_path / "bare")


def test_a_report_without_matplotlib_is_refused_at_once(bag, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main([str(bag), str(tmp_path / "out"), *QUICK, "--report", str(tmp_path / "a.html")]) == 2
    assert "--report needs matplotlib: pip install matplotlib" in capsys.readouterr().err and not list(tmp_path.iterdir())
    assert main([str(bag), str(tmp_path / "out"), *QUICK, "--preview", str(tmp_path / "a.mp4")]) == 0


def test_a_report_of_each_third_image_is_of_those(bag, tmp_path):
    file = tmp_path / "a.html"
    assert main([str(bag), str(tmp_path / "out"), *QUICK, "--every", "3", "--report", str(file)]) == 0
    text = file.read_text()
    assert "4 of 4" in text and "one of 3" in text and "no depth" not in text


# -- recordings that are whole, though not as most are ----------------------------------------------------------------


def test_a_message_beside_a_damaged_one_of_the_same_time_is_kept(tmp_path, capsys):
    """All messages of an instant have one time; of one image the bytes are lost."""
    messages = [(topic, START + (time_ns - START) // 10**8 * 10**8, message) for topic, time_ns, message in camera_messages(6)]
    bag = write_bag(tmp_path / "bag", messages, storage="sqlite3")
    file = next(bag.glob("*.db3"))
    with closing(sqlite3.connect(file)) as database:
        (page,) = database.execute("PRAGMA page_size").fetchone()
        (third,) = database.execute(
            "SELECT data FROM messages JOIN topics ON topics.id = topic_id WHERE name = ? ORDER BY timestamp LIMIT 1 OFFSET 2",
            (IMAGE,),
        ).fetchone()
    content = bytearray(file.read_bytes())
    at = content.index(bytes(third[9000:9100])) // page * page  # a page that its bytes go on in
    content[at : at + 4] = b"\xff\xff\xff\xff"
    file.write_bytes(content)
    assert main([str(bag), str(tmp_path / "out"), *QUICK]) == 0
    said = capsys.readouterr().err
    assert "behind second 0.200 of the bag" in said, said
    found = counts(tmp_path / "out")
    assert (found["/chatter"], found[INFO], found[IMAGE], found[DEPTH]) == (6, 6, 5, 5)


@pytest.mark.parametrize("what", ["no message indexes", "an unknown definition"])
def test_a_whole_recording_of_another_make_is_read_without_a_warning(bag, tmp_path, capsys, what):
    path = tmp_path / "other.mcap"
    index = IndexType.CHUNK if what == "no message indexes" else IndexType.ALL
    writer, channels = McapWriter(str(path), index_types=index), {}
    writer.start(profile="ros2", library="test")
    for topic, time_ns, cdr in read_bag(bag):
        if topic not in channels:
            kind = {IMAGE: "sensor_msgs/msg/Image", INFO: "sensor_msgs/msg/CameraInfo"}.get(topic, "std_msgs/msg/String")
            encoding = "unknown" if what == "an unknown definition" and topic == "/chatter" else "ros2msg"
            text = "" if encoding == "unknown" else STORE.generate_msgdef(kind, ros_version=2)[0]
            schema = writer.register_schema(kind, encoding, text.encode())
            channels[topic] = writer.register_channel(topic, "cdr", schema)
        writer.add_message(channels[topic], time_ns, cdr, time_ns)
    writer.finish()
    assert main([str(path), str(tmp_path / "out"), *QUICK]) == 0
    said = capsys.readouterr().err
    assert "warning" not in said, said
    found = read_bag(tmp_path / "out")
    assert sorted(each for each in found if not each[0].startswith("/depth_anything")) == sorted(read_bag(bag))


def test_a_type_that_nobody_knows_stays_readable(bag, tmp_path):
    """As Humble records it in SQLite: no definition of the type, so that its hash cannot be known."""
    with Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.SQLITE3) as writer:
        own = writer.add_connection("/own", "my_msgs/msg/Foo", msgdef="", rihs01="nothing")
        image = writer.add_connection(IMAGE, "sensor_msgs/msg/Image", typestore=STORE)
        writer.write(own, START, b"\x00\x01\x00\x00\x07\x00\x00\x00")
        writer.write(image, START + 1, next(cdr for topic, _, cdr in read_bag(bag) if topic == IMAGE))
    with closing(sqlite3.connect(tmp_path / "bag" / "bag.db3")) as database:
        database.execute("UPDATE topics SET type_description_hash = ''")
        database.execute("DELETE FROM message_definitions")
        database.commit()
    assert main([str(tmp_path / "bag"), str(tmp_path / "out"), *QUICK]) == 0
    assert counts(tmp_path / "out")["/own"] == 1  # by a reader that compares hashes with definitions
