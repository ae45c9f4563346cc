# SPDX-License-Identifier: Apache-2.0
"""`bag_player` beside a depth node that is slower than the bag: both are real processes."""

import re
import signal
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from bags import START, STORE, camera_messages, read_bag, write_bag
from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, HistoryPolicy, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from ros import OUTPUTS, DepthProcess, bench, stamp_of
from rosbags.interfaces import (
    MessageDefinition,
    MessageDefinitionFormat,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String

from depth_anything_ros import depth_bag
from depth_anything_ros.inference import make_deterministic
from depth_anything_ros.node import bag_player
from depth_anything_ros.node.bag_topics import publisher_qos
from depth_anything_ros.replay.messages import Topic

SLOW = 0.1  # seconds that the network takes for an image; the bag has one every 10 ms
FRAMES, SPOILT = 20, 7
CAMERA = "/camera/color"
PARAMETERS = {"model": "demo", "camera.image": f"{CAMERA}/image_raw", "deterministic": True, "stabilizer.enabled": True}
DEPTH = ("depth/image", "depth/camera_info", "depth/color", "depth/points")


def stamps(k):
    return START + k * 10_000_000


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    """20 images of 100 Hz, each 50 ms before its camera_info, as with some drivers; one says that it has shorter rows."""
    messages = []
    for topic, time_ns, message in camera_messages(FRAMES, 100.0):
        if topic.endswith("camera_info"):
            time_ns += 50_000_000
        elif topic.endswith("image_raw") and stamp_of(message) == stamps(SPOILT):
            message.step = 100
        messages.append((topic, time_ns, message))
    return write_bag(tmp_path_factory.mktemp("bag") / "spoilt", sorted(messages, key=lambda each: each[1]))


@contextmanager
def depth_node(folder, namespace="depth_anything"):
    """A depth node that takes SLOW seconds for an image of the bag's camera."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLOW_NETWORK_SECONDS", str(SLOW))
        command = (str(Path(__file__).with_name("slow_depth_node.py")),)
        parameters = {name.replace(".", "__"): value for name, value in PARAMETERS.items()}
        process = DepthProcess(folder, "-r", f"__ns:=/{namespace}", command=command, **parameters)
    with process:
        yield process


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    with depth_node(tmp_path_factory.mktemp("node")) as process:
        yield process


def player(folder, bag, **parameters):
    return DepthProcess(folder, command=("-m", "depth_anything_ros.node.bag_player"), bag=bag, **parameters)


class Listener:
    """What came of a bag, in the order of arrival."""

    def __init__(self, it):
        self.it, self.log = it, []
        topics = {f"{CAMERA}/image_raw": Image, f"{CAMERA}/camera_info": CameraInfo, "/chatter": String, "/clock": Clock}
        for topic, kind in (topics | {name: OUTPUTS[name] for name in DEPTH}).items():
            it.node.create_subscription(kind, topic, lambda m, topic=topic: self.log.append((topic, m, time.monotonic())), 100)

    def of(self, topic):
        return [message for name, message, _ in self.log if name == topic]

    def wait_played(self, process, seconds=40):
        self.it.wait(lambda: not process.alive, f"the end of the player: {process.log}", seconds)
        self.it.spin(0.3)
        assert process.process.returncode == 0, process.log


@pytest.fixture(scope="module")
def played(node, bag, tmp_path_factory):
    """What came of the bag in step with the node: (listener, bench, log of the player)."""
    with bench(namespace="depth_anything", listen=()) as it:
        listener = Listener(it)
        with player(tmp_path_factory.mktemp("player"), bag) as process:
            listener.wait_played(process)
        return listener, it, process.log


def test_in_step_every_image_gets_its_depth_however_slow_the_network(played):
    listener, it, log = played
    good = [stamps(k) for k in range(FRAMES) if k != SPOILT]
    assert [stamp_of(m) for m in listener.of("depth/image")] == good
    assert [stamp_of(m) for m in listener.of("depth/points")] == good  # none without its calibration
    assert [stamp_of(m) for m in listener.of(f"{CAMERA}/image_raw")] == [stamps(k) for k in range(FRAMES)]
    assert [m.data for m in listener.of("/chatter")] == [f"hello {k}" for k in range(FRAMES)]
    assert it.values["frames dropped"] == "0" and it.values["problems: bad image"] == "1"
    assert f"{FRAMES} images of 1 cameras: {FRAMES - 1} with depth" in log
    order = [(topic, stamp_of(message)) for topic, message, _ in listener.log if topic.startswith(CAMERA)]
    for stamp in good:  # what belongs to an image comes before it
        assert order.index((f"{CAMERA}/camera_info", stamp)) < order.index((f"{CAMERA}/image_raw", stamp))
    clock = [m.clock.sec * 10**9 + m.clock.nanosec for m in listener.of("/clock")]
    assert clock == sorted(clock) and len(clock) >= FRAMES
    assert clock[0] == stamps(0) + 3_000_000 and clock[-1] >= stamps(FRAMES - 1) + 3_000_000


def test_in_step_depth_is_the_same_message_by_message_as_the_tool_makes_of_the_bag(played, bag, tmp_path):
    listener, _, _ = played
    words = ["-p", "backend:=torch", "--topics", ",".join(DEPTH), "--only-depth", "--quiet"]
    for name, value in PARAMETERS.items():
        words += ["-p", f"{name}:={str(value).lower() if isinstance(value, bool) else value}"]
    try:
        assert depth_bag.main([*words, str(bag), str(tmp_path / "out")]) == depth_bag.INCOMPLETE  # the spoilt one
    finally:
        make_deterministic(False)
    made = read_bag(tmp_path / "out")
    for name in DEPTH:
        ours = [deserialize_message(cdr, OUTPUTS[name]) for topic, _, cdr in made if topic == f"/depth_anything/{name}"]
        assert len(ours) == FRAMES - 1 and ours == listener.of(name), name


def test_by_time_the_gaps_are_kept_and_a_slow_network_drops_images(node, bag, tmp_path):
    with bench(namespace="depth_anything", listen=()) as it:
        listener = Listener(it)
        with player(tmp_path, bag, pace="time", rate=0.25) as process:
            listener.wait_played(process)
    images = [(stamp_of(m), at) for topic, m, at in listener.log if topic == f"{CAMERA}/image_raw"]
    assert [stamp for stamp, _ in images] == [stamps(k) for k in range(FRAMES)]
    assert images[-1][1] - images[0][1] > 0.5 * 19 * 0.01 / 0.25
    depths = [stamp_of(m) for m in listener.of("depth/image")]
    assert 1 < len(depths) < FRAMES - 3 and depths == sorted(depths)


def test_a_node_that_dies_ends_the_player_with_an_error(tmp_path):
    (tmp_path / "player").mkdir()
    bag = write_bag(tmp_path / "bag", camera_messages(200, 100.0))
    with depth_node(tmp_path, "mortal") as node, bench(namespace="mortal", listen=("depth/image",)) as it:
        it.wait(lambda: "running demo" in node.log, "the network", 60)
        with player(tmp_path / "player", bag, depth_namespace="mortal", patience=20.0, settle=1.0) as process:
            it.wait(lambda: len(it.received["depth/image"]) >= 3, "depth", 40)
            assert process.alive
            node.process.send_signal(signal.SIGKILL)
            it.wait(lambda: not process.alive, "the end of the player", 30)
        assert process.process.returncode == 1
        assert re.search(r"the depth node has said nothing for \d+ s: .*image \d", process.log)
        assert "Traceback" not in process.log


def test_an_interrupt_ends_it_cleanly(bag, tmp_path):
    with player(tmp_path, bag, depth_namespace="nobody") as process, bench(listen=()) as it:
        it.wait(lambda: "waiting: /diagnostics tell of no depth node in the namespace 'nobody'" in process.log, "the player")
        assert process.stop() == 0 and "Traceback" not in process.log


@pytest.fixture
def here(monkeypatch):
    """The player in this process, which is quicker to start; returns its exit code."""
    monkeypatch.setenv("FASTDDS_BUILTIN_TRANSPORTS", "DEFAULT")  # then it leaves the environment alone
    return lambda *words: bag_player.main(["--ros-args", *(part for word in words for part in ("-p", word))])


def test_a_topic_whose_type_is_not_installed_is_named_once(here, tmp_path, capfd):
    with Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        known = writer.add_connection("/chatter", "std_msgs/msg/String", typestore=STORE)
        other = writer.add_connection("/gripper", "nobody_msgs/msg/Grip", msgdef="int32 x\n", rihs01="RIHS01_" + 64 * "0")
        for k in range(3):
            writer.write(known, k, STORE.serialize_cdr(STORE.types["std_msgs/msg/String"]("x"), "std_msgs/msg/String"))
            writer.write(other, k, b"\0\1\0\0\1\0\0\0")
    assert here(f"bag:={tmp_path / 'bag'}", "pace:=time", "wait_for_depth:=false", "settle:=0.0") == 0
    assert capfd.readouterr().err.count("'/gripper' (nobody_msgs/msg/Grip)") == 1


def test_a_bag_that_cannot_be_played_ends_it_in_words(here, bag, tmp_path, capfd):
    empty = write_bag(tmp_path / "empty", [])
    for words, text in (
        ((), "bag is empty, expected the path of a bag"),
        ((f"bag:={tmp_path / 'no'}",), f"there is no bag '{tmp_path / 'no'}'"),
        ((f"bag:={empty}",), f"'{empty}'"),
        ((f"bag:={bag}", "topics:=[nothing]"), f"/nothing: not in '{bag}'; its topics are: {CAMERA}/camera_info"),
        ((f"bag:={bag}", "start:=7"), "start is 7, but"),
        ((f"bag:={bag}", "rate:=0.0"), "rate is 0.0, expected a number of more than 0"),
        ((f"bag:={bag}", "pace:=fast"), "pace is 'fast', expected node or time"),
        ((f"bag:={bag}", "patience:=0.3", "depth_namespace:=nobody"), "waited 0.3 s in vain: /diagnostics tell of no depth"),
    ):
        assert here(*words) == 1
        said = [line for line in capfd.readouterr().err.splitlines() if "[ERROR]" in line]
        assert len(said) == 1 and text in said[0], said


def test_quality_of_service_is_as_recorded():
    never, tenth = QosTime(9223372036, 854775807), QosTime(0, 100_000_000)
    recorded = Qos(QosHistory.KEEP_LAST, 3, QosReliability.BEST_EFFORT, QosDurability.VOLATILE, tenth, never,
                   QosLiveliness.AUTOMATIC, never, False)  # fmt: skip
    latched = recorded._replace(depth=1, reliability=QosReliability.RELIABLE, durability=QosDurability.TRANSIENT_LOCAL)
    unknown = recorded._replace(history=QosHistory.UNKNOWN, depth=0, deadline=never)

    def played(*offers, name="/scan", kind="sensor_msgs/msg/LaserScan", **options):
        topic = Topic(name, kind, MessageDefinition(MessageDefinitionFormat.NONE, ""), "", offers)
        qos = publisher_qos(topic, 40, **options)
        return qos.history, qos.depth, qos.reliability, qos.durability, qos.deadline

    last, best, sure = HistoryPolicy.KEEP_LAST, ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE
    volatile, kept = DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL
    assert played(recorded, latched) == (last, 3, best, volatile, Duration(seconds=0.1))
    assert played(latched) == (last, 40, sure, kept, Duration(seconds=0.1))  # whoever comes late gets all of it
    assert played(unknown) == (last, 10, best, volatile, Duration())
    assert played() == (last, 10, sure, volatile, Duration())
    assert played(name="/tf_static", kind="tf2_msgs/msg/TFMessage") == (last, 40, sure, kept, Duration())
    assert played(recorded, lossless=True) == (last, 1, sure, volatile, Duration(seconds=0.1))
