# SPDX-License-Identifier: Apache-2.0
"""depth_bag under kill -9, on a full disk, with a cut-off input, with workers that die: the result is that of a quiet day."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from bags import DEPTH, IMAGE, QUICK, camera_messages, counts, digest, read_bag, write_bag
from ros import picture

from depth_anything_ros.depth_bag import main
from depth_anything_ros.replay.messages import BagError
from depth_anything_ros.replay.workers import Workers

PARTS = ".state/[0-9]*.json"  # of parts that are finished
STATEFUL = ("-p", "stabilizer.enabled:=true")
WITH_FEATURES = ("depth/image", "features", "features/camera_info", "features/class_token")


def moving(width, height, k):
    """What a camera that goes sideways sees: something to follow."""
    wide = np.concatenate([picture(width, height, 3), picture(width, height, 4)], 1)
    return np.ascontiguousarray(wide[:, 2 * k % width : 2 * k % width + width])


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return write_bag(tmp_path_factory.mktemp("in") / "bag", camera_messages(frames=60, pixels=moving))


class Forker:
    """Starts depth_bag in a process of its own, without waiting for torch to load each time."""

    def __init__(self, folder):
        self.log = folder / "log"
        command = [sys.executable, str(Path(__file__).with_name("forker.py"))]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def start(self, *words, file_size=0):
        """The process's number."""
        told = {"words": [str(word) for word in words], "file_size": file_size, "log": str(self.log)}
        self.process.stdin.write(json.dumps(told) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def wait(self):
        """The exit code of what was started last."""
        return int(self.process.stdout.readline())

    def wait_for_part(self, partial, pid, more_than=0):
        """Until a part is finished, or the process has ended."""
        while os.path.exists(f"/proc/{pid}") and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
            if len(list(partial.glob(PARTS))) > more_than:
                return
            time.sleep(0.002)


@pytest.fixture(scope="module")
def forker(tmp_path_factory):
    it = Forker(tmp_path_factory.mktemp("forker"))
    yield it
    it.process.stdin.close()
    it.process.wait(20)
    it.process.stdout.close()


def test_a_run_that_is_killed_again_and_again_ends_as_if_nothing_had_been(bag, forker, tmp_path):
    words = [*QUICK, *STATEFUL, "--split-size", "300k"]
    assert main([str(bag), str(tmp_path / "whole" / "out"), *words]) == 0
    out, chance, killed, parts = tmp_path / "cut" / "out", random.Random(5), 0, []
    partial = out.with_name("out.partial")
    while killed < 10 and not out.exists():
        before = len(list(partial.glob(PARTS)))
        pid = forker.start(bag, out, *words, "--resume")
        if chance.random() < 0.5:  # else at any time, so that some runs come to nothing
            forker.wait_for_part(partial, pid, before)
        time.sleep(chance.uniform(0, 0.2))
        os.kill(pid, signal.SIGKILL)
        killed += forker.wait() == -signal.SIGKILL
        parts.append(len(list(partial.glob(PARTS))))
    assert killed >= 5 and len(set(parts)) > 3, parts
    if not out.exists():
        assert main([str(bag), str(out), *words, "--resume"]) == 0
    assert digest(out) == digest(tmp_path / "whole" / "out")
    assert not partial.exists()


def test_what_was_begun_otherwise_is_not_gone_on_with(bag, forker, tmp_path, capsys):
    out, words = tmp_path / "out", [*QUICK, "--split-size", "100k"]
    pid = forker.start(bag, out, *words)
    forker.wait_for_part(tmp_path / "out.partial", pid)
    os.kill(pid, signal.SIGSTOP)
    assert main([str(bag), str(out), *words, "--resume"]) == 2
    assert "is being written by another process" in capsys.readouterr().err
    os.kill(pid, signal.SIGKILL)
    forker.wait()
    assert main([str(bag), str(out), *words]) == 2
    assert "go on with --resume" in capsys.readouterr().err
    assert main([str(bag), str(out), *words, "--resume", "-p", "max_depth:=5.0"]) == 2
    assert "begun with another input, other parameters" in capsys.readouterr().err
    assert main([str(bag), str(out), *words, "--resume"]) == 0
    assert counts(out)[DEPTH] == 60
    assert main([str(bag), str(out), *QUICK]) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_bag_that_was_cut_off_is_read_as_far_as_it_goes(storage, tmp_path, capsys):
    whole = write_bag(tmp_path / "whole", camera_messages(20, width=320, height=240), storage)
    (file,) = (path for path in whole.iterdir() if path.name != "metadata.yaml")
    known, chance, some = read_bag(whole), random.Random(11), 0
    for number in range(12):
        cut, out = tmp_path / f"cut{number}", tmp_path / f"out{number}"
        shutil.copytree(whole, cut)
        with (cut / file.name).open("r+b") as shortened:
            shortened.truncate(chance.randrange(file.stat().st_size))
        code = main([str(cut), str(out), *QUICK, "--topics", "depth/image"])
        said = capsys.readouterr().err
        if code == 2:
            assert "nothing can be read" in said or "no camera was found" in said
            assert not out.exists()
            continue
        made = read_bag(out)
        kept = [each for each in made if each[0] != DEPTH]
        assert code == 0 and f"{len(kept)} messages can be read" in said
        rest = iter(known)
        assert all(each in rest for each in kept)  # nothing is invented, and nothing comes out of its turn
        assert counts(out)[DEPTH] == counts(out)[IMAGE]
        some += bool(kept)
    assert some >= 4


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_an_interrupt_ends_it_with_a_word_on_how_to_go_on(storage, bag, forker, tmp_path):
    words = [*QUICK, "--split-size", "100k", "--storage", storage]
    pid = forker.start(bag, tmp_path / "out", *words)
    forker.wait_for_part(tmp_path / "out.partial", pid)
    os.kill(pid, signal.SIGINT)
    assert forker.wait() == 1, forker.log.read_text()
    assert forker.log.read_text().endswith("interrupted; the same command with --resume goes on\n")
    assert "Traceback" not in forker.log.read_text()
    assert main([str(bag), str(tmp_path / "out"), *words, "--resume"]) == 0
    assert counts(tmp_path / "out")[DEPTH] == 60


def test_a_full_disk_is_said_and_costs_nothing(bag, forker, tmp_path):
    before = digest(bag)
    forker.start(bag, tmp_path / "out", *QUICK, "--topics", "depth/image,depth/points", file_size=400_000)
    assert forker.wait() == 2, forker.log.read_text()
    assert "the disk is full" in forker.log.read_text() and "--resume" in forker.log.read_text()
    assert digest(bag) == before
    assert not (tmp_path / "out").exists()
    assert main([str(bag), str(tmp_path / "out"), *QUICK, "--resume"]) == 0
    assert counts(tmp_path / "out")[DEPTH] == 60


def run(*words):
    made = subprocess.run(
        [sys.executable, "-m", "depth_anything_ros.depth_bag", *map(str, words)], capture_output=True, text=True, timeout=200
    )
    assert made.returncode == 0, made.stderr
    return made.stderr


def test_two_ray_workers_say_what_one_process_says(bag, tmp_path):
    pytest.importorskip("ray")
    assert main([str(bag), str(tmp_path / "one" / "out"), *QUICK, *STATEFUL]) == 0
    said = run(bag, tmp_path / "many" / "out", *QUICK, *STATEFUL, "--ray", "local", "--workers", "2")
    assert "frames/s" in said
    assert digest(tmp_path / "many" / "out") == digest(tmp_path / "one" / "out")


def test_two_processes_say_what_one_says_even_if_one_of_them_dies(bag, tmp_path):
    words = [*QUICK, *STATEFUL, "--split-size", "100k", "--topics", ",".join(WITH_FEATURES)]
    assert main([str(bag), str(tmp_path / "one" / "out"), *words]) == 0
    command = [sys.executable, "-m", "depth_anything_ros.depth_bag", bag, tmp_path / "many" / "out", *words, "--workers", "2"]
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)
    while not list((tmp_path / "many").glob(f"out.partial/{PARTS}")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.002)
    found = subprocess.run(["pgrep", "-P", str(process.pid), "-f", "spawn_main"], capture_output=True, text=True)
    os.kill(int(found.stdout.split()[0]), signal.SIGKILL)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 0, said
    assert digest(tmp_path / "many" / "out") == digest(tmp_path / "one" / "out")
    counted = Counter(topic for topic, _, _ in read_bag(tmp_path / "many" / "out"))
    assert {counted[f"/depth_anything/{topic}"] for topic in WITH_FEATURES} == {counted["/camera/color/image_raw"]}


@pytest.fixture
def workers():
    it = Workers(2, print)
    yield it
    it.close()


def test_work_that_kills_its_worker_is_given_up_and_costs_the_others_nothing(workers):
    pids = {workers.submit(os.getpid).result(30) for _ in range(2)}
    assert os.getpid() not in pids
    deadly, others = workers.submit(os._exit, 9), [workers.submit(divmod, k, 7) for k in range(20)]
    assert [other.result(30) for other in others] == [divmod(k, 7) for k in range(20)]
    with pytest.raises(BagError, match="died 3 times"):
        deadly.result(60)
    with pytest.raises(ZeroDivisionError):
        workers.submit(divmod, 1, 0).result(30)
    assert workers.submit(len, "four").result(30) == 4


def test_closing_does_not_wait_for_long_work(workers):
    workers.submit(os.getpid).result(30)
    busy, begin = workers.submit(time.sleep, 100), time.monotonic()
    time.sleep(0.2)
    workers.close()
    assert time.monotonic() - begin < 20
    with pytest.raises(BagError):
        busy.result(1)


def test_workers_end_with_the_process_that_they_work_for():
    script = "import os, time; from depth_anything_ros.replay.workers import Workers; w = Workers(1, print);"
    script += "print(w.submit(os.getpid).result(), flush=True); w.submit(time.sleep, 100).result()"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    lines = [process.stdout.readline() for _ in range(2)]  # what `print` was told, and the answer
    pid = int(lines[1])
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    end = time.monotonic() + 20
    while os.path.exists(f"/proc/{pid}") and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < end
        time.sleep(0.05)


def test_several_bags_go_into_a_folder_a_bag_to_each_worker(bag, tmp_path):
    other = write_bag(tmp_path / "other", camera_messages(frames=12))
    run(bag, other, tmp_path / "out", *QUICK, "--workers", "2")
    assert (counts(tmp_path / "out" / "bag")[DEPTH], counts(tmp_path / "out" / "other")[DEPTH]) == (60, 12)
