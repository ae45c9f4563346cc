# SPDX-License-Identifier: Apache-2.0
"""With a network of 1 frame/s and a camera of 30 Hz: no stale depth, and the camera never notices."""

import functools
import os
import time
from pathlib import Path

import numpy as np
import pytest
from ros import DepthProcess, bench, picture, stamp_of
from sensor_msgs.msg import Image

pytestmark = pytest.mark.alone  # ages are compared with the network's own time: nothing else may compete for the cores

SLOW = str(Path(__file__).parent / "slow_depth_node.py")
PERIOD = 1 / 30


@pytest.fixture(autouse=True)
def quiet_machine():
    """Begin when what ran before has ended and the cores have been idle for a second; at most a minute later."""
    stat, ticks = Path("/proc/stat"), os.sysconf("SC_CLK_TCK")
    idle = lambda: int(stat.read_text().split()[4]) / ticks / os.cpu_count()  # noqa: E731  seconds; waiting for a disk is not
    for _ in range(60):
        before, started = idle(), time.monotonic()
        time.sleep(1.0)
        if idle() - before > 0.9 * (time.monotonic() - started):
            break


def thrice(test):
    """A machine that others use, too, stands still now and then, and a mistake of ours is there each time.

    So the bounds have to hold in one of three runs, each with processes of its own.
    """

    @functools.wraps(test)
    def run(tmp_path, monkeypatch):
        for number in range(3):
            folder = tmp_path / str(number)
            folder.mkdir()
            try:
                return test(folder, monkeypatch)
            except AssertionError as error:
                print(f"run {number}: {error}")
                if number == 2:
                    raise

    return run


@thrice
def test_depth_is_never_older_than_the_network_takes(tmp_path, monkeypatch):
    monkeypatch.setenv("SLOW_NETWORK_SECONDS", "1.0")
    with DepthProcess(tmp_path, command=(SLOW,), model="demo"), bench(listen=("depth/image",)) as it:
        it.wait_reading()
        rgb, next_at, publishing = picture(), time.monotonic(), []
        before = int(it.values["images received"])
        for _ in range(300):
            started = time.monotonic()
            it.send(rgb)
            publishing.append(time.monotonic() - started)
            next_at += PERIOD
            it.spin(max(0.0, next_at - time.monotonic()))
        elapsed = time.monotonic() - (next_at - 300 * PERIOD)
        it.spin(1.2)

        ages = (np.asarray(it.arrivals["depth/image"]) - [stamp_of(m) for m in it.received["depth/image"]]) / 1e9
        assert len(ages) >= 8
        assert ages.max() <= 1.3 * 1.0 + 2 * PERIOD, ages
        assert 300 / elapsed > 28, "the camera could not keep its rate"
        assert np.percentile(publishing, 95) < PERIOD
        it.wait(lambda: int(it.values["images received"]) - before >= 295, "nearly every image received")
        assert int(it.values["frames dropped"]) > 250
        stamps = [stamp_of(m) for m in it.received["depth/image"]]
        assert stamps == sorted(stamps)


@thrice
def test_a_reliable_camera_in_another_process_keeps_its_rate(tmp_path, monkeypatch):
    monkeypatch.setenv("SLOW_NETWORK_SECONDS", "1.0")
    (tmp_path / "player").mkdir()
    camera = {"source": "scenes", "scenes": 1, "frames": 4, "width": 320, "height": 240, "rate": 30.0, "wait_for_reader": True}
    with (
        DepthProcess(tmp_path, "-r", "image:=/camera/image_raw", command=(SLOW,), model="demo"),
        DepthProcess(tmp_path / "player", command=("-m", "depth_anything_ros.node.camera_player"), **camera),
        bench(listen=("depth/image",)) as it,
    ):
        stamps = []
        it.node.create_subscription(Image, "/camera/image_raw", lambda message: stamps.append(stamp_of(message)), 50)
        it.wait(lambda: len(stamps) > 60, "two seconds of camera", 60)
        stamps.clear()
        it.wait(lambda: len(stamps) >= 150, "five seconds of camera", 30)
        periods = np.diff(stamps) / 1e9
        assert 0.95 * PERIOD < periods.mean() < 1.1 * PERIOD
        assert len(it.received["depth/image"]) >= 3
