# SPDX-License-Identifier: Apache-2.0
"""How the node starts, changes and fails: transitions, checks before anything is published, relative models, determinism."""

import contextlib
import time
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lifecycle_msgs.msg import Transition
from ros import DepthProcess, bench, picture, stamp_of

from depth_anything_ros.node.network_slot import NetworkSlot
from depth_anything_ros.stream.settings import NetworkSettings


def test_a_manager_can_drive_every_transition(tmp_path):
    with DepthProcess(tmp_path, model="demo", autostart=False) as node, bench() as it:
        assert it.state() == "unconfigured"
        it.wait(lambda: "not active (unconfigured)" in it.message, "a status before configure")
        assert it.change_state(Transition.TRANSITION_CONFIGURE) and it.state() == "inactive"
        for _ in range(2):
            assert it.change_state(Transition.TRANSITION_ACTIVATE) and it.state() == "active"
            it.wait_reading()
            it.expect("depth/points", it.send(picture()))
            assert it.change_state(Transition.TRANSITION_DEACTIVATE) and it.state() == "inactive"
            silent = it.send(picture())
            it.spin(0.5)
            assert all(stamp_of(m) != silent for m in it.received["depth/image"])
        assert it.change_state(Transition.TRANSITION_CLEANUP) and it.state() == "unconfigured"
        assert it.set_parameters(input_size=208) == (True, "")
        assert it.change_state(Transition.TRANSITION_CONFIGURE) and it.change_state(Transition.TRANSITION_ACTIVATE)
        it.wait_reading()
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
        it.wait_reading()
        it.expect("depth/image", it.send(picture()))


def test_another_encoder_takes_over_without_a_gap_longer_than_one_frame(tmp_path, vits):
    """From the embedded model to a real ViT-S, loaded beside it."""
    with DepthProcess(tmp_path, model="demo") as node, bench() as it:
        it.wait_reading()
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


def test_deterministic_runs_give_the_same_bytes(tmp_path):
    results = []
    for run in ("first", "second"):
        (tmp_path / run).mkdir()
        with DepthProcess(tmp_path / run, model="demo", deterministic=True), bench() as it:
            it.wait_reading()
            stamps = [it.send(picture(seed=1), stamp=10**9 * 7)]
            results.append(
                [bytes(it.expect(topic, stamps[0]).data) for topic in ("depth/image", "depth/points", "depth/color")]
            )
    assert results[0] == results[1]


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


def test_requests_that_the_state_does_not_allow_are_refused_and_survived(tmp_path):
    with DepthProcess(tmp_path, model="demo") as node, bench() as it:
        it.wait_reading()
        with contextlib.suppress(AssertionError):  # Humble and Jazzy do not answer such a request
            assert not it.change_state(Transition.TRANSITION_ACTIVATE, seconds=3)
        it.expect("depth/image", it.send(picture()))
        assert node.alive


class Manager:
    """Does to a node what nav2_lifecycle_manager does (lifecycle_manager.cpp, main), with its time limits in seconds."""

    SERVICE_TIMEOUT, BOND_TIMEOUT = 5.0, 4.0

    def __init__(self, it):
        self.it = it

    def change(self, transition, goal):
        start = time.monotonic()
        assert self.it.change_state(transition, self.SERVICE_TIMEOUT)
        assert self.it.state() == goal
        return time.monotonic() - start

    def startup(self):
        self.change(Transition.TRANSITION_CONFIGURE, "inactive")
        self.change(Transition.TRANSITION_ACTIVATE, "active")

    def bond(self):
        """The manager's half, by bondpy, formed as after `activate`: within half of the timeout."""
        bondpy = pytest.importorskip("bondpy.bondpy", reason="bonds come with a ROS 2 distro, not from PyPI")
        bond = bondpy.Bond(self.it.node, "bond", "depth_node")
        bond.heartbeat_timeout = self.BOND_TIMEOUT
        bond.start()
        self.it.wait(lambda: bond.sm.getState().getName() == "SM.Alive", "the bond", self.BOND_TIMEOUT / 2)
        return bond


def test_a_manager_never_waits_for_a_network_that_loads_slowly(tmp_path, monkeypatch):
    """Twelve seconds of loading: every service answers within the manager's five."""
    monkeypatch.setenv("SLOW_NETWORK_SECONDS", "12")  # the first pass is part of loading
    slow = str(Path(__file__).parent / "slow_depth_node.py")
    with DepthProcess(tmp_path, command=(slow,), model="demo", autostart=False) as node, bench() as it:
        manager = Manager(it)
        assert it.state() == "unconfigured"  # the process is up
        assert manager.change(Transition.TRANSITION_CONFIGURE, "inactive") < Manager.SERVICE_TIMEOUT
        assert manager.change(Transition.TRANSITION_ACTIVATE, "active") < Manager.SERVICE_TIMEOUT
        it.wait(lambda: it.values.get("network") == "loading", "diagnostics that say what is going on")
        manager.change(Transition.TRANSITION_DEACTIVATE, "inactive")
        manager.change(Transition.TRANSITION_CLEANUP, "unconfigured")
        manager.startup()
        it.wait_ready()
        assert "Traceback" not in node.log


@pytest.mark.parametrize("end", ["killed", "interrupted", "deactivated"])
def test_a_bond_breaks_when_depth_ends(tmp_path, end):
    with DepthProcess(tmp_path, model="demo", autostart=False) as node:
        for _ in range(2 if end == "deactivated" else 1):  # it can be formed again
            with bench(listen=()) as it:
                manager = Manager(it)
                if it.state() == "unconfigured":
                    manager.change(Transition.TRANSITION_CONFIGURE, "inactive")
                manager.change(Transition.TRANSITION_ACTIVATE, "active")
                bond = manager.bond()
                it.spin(5)
                assert not bond.is_broken()  # heartbeats keep it
                if end == "killed":
                    node.process.kill()
                elif end == "interrupted":
                    assert node.stop() == 0
                else:
                    manager.change(Transition.TRANSITION_DEACTIVATE, "inactive")
                it.wait(bond.is_broken, "the end of the bond", 6)
        assert "Traceback" not in node.log and "InvalidHandle" not in node.log


def test_cleanup_lets_go_of_the_network_and_of_its_memory():
    slot = NetworkSlot(lambda line: None)
    settings = SimpleNamespace(network=NetworkSettings("demo", "tiny", 96, "", "auto", "auto", "torch", 0))
    slot.request(settings)
    while not slot.running:
        assert not slot.error
        time.sleep(0.01)
    network = weakref.ref(slot.running.estimator.network)
    on_gpu = slot.running.estimator.device.type == "cuda"
    assert network() is not None and (not on_gpu or torch.cuda.memory_reserved() > 0)
    slot.clear()
    assert network() is None
    assert not on_gpu or torch.cuda.memory_reserved() == 0
