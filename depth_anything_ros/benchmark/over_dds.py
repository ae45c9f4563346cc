# SPDX-License-Identifier: Apache-2.0
"""The whole way: a camera in one process, `depth_node` in another, and this one as consumer."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image, PointCloud2

from ..messages.cdr import read_header
from ..node.process import use_large_shared_memory
from .operations import spread

TOPICS = {"depth/image": Image, "depth/color": Image, "depth/points": PointCloud2}
_TIME = re.compile(r"time (.+) p50, p99 \(ms\)")
_PATIENCE = 600.0  # seconds for a network to load


class DdsError(RuntimeError):
    """Something did not come over DDS; the message has the node's last lines."""


class Bench:
    """A `depth_node` with these parameters, and what comes out of it. Close it.

    Attributes:
        latencies: by topic, seconds from the camera's stamp to the arrival here, of everything that came.
        said: the newest diagnostics of the node.
    """

    def __init__(self, parameters: dict[str, object]):
        self.namespace = f"/depth_benchmark_{os.getpid()}"
        self.latencies: dict[str, list[float]] = defaultdict(list)
        self.said: dict[str, str] = {}
        self._folder = tempfile.TemporaryDirectory()
        self._log = Path(self._folder.name) / "node.log"
        self._processes: list[subprocess.Popen] = []
        use_large_shared_memory()
        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        self._node = rclpy.create_node("benchmark", namespace=self.namespace, context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        for topic, kind in TOPICS.items():
            self._node.create_subscription(kind, topic, self._receiver(topic), QoSProfile(depth=1), raw=True)
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._listen, QoSProfile(depth=10))
        words = [word for name, value in parameters.items() for word in ("-p", f"{name}:={_yaml(value)}")]
        self.start("depth_anything_ros.node.depth_node", "--ros-args", *words)

    def start(self, module: str, *words: str) -> subprocess.Popen:
        """A process of ours in the bench's namespace, its output in the log."""
        words = (*words, *(() if "--ros-args" in words else ("--ros-args",)), "-r", f"__ns:={self.namespace}")
        with self._log.open("a") as log:
            process = subprocess.Popen([sys.executable, "-m", module, *words], stdout=log, stderr=subprocess.STDOUT)
        self._processes.append(process)
        return process

    def spin_until(self, condition, what: str, seconds: float) -> None:
        """Take what comes until a condition holds.

        Raises:
            DdsError: it does not within these seconds, or a process has ended.
        """
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end or any(process.poll() is not None for process in self._processes):
                tail = "\n".join(self._log.read_text().splitlines()[-8:])
                raise DdsError(f"waited in vain for {what}; the last lines were\n{tail}")
            self._executor.spin_once(0.05)

    def end(self, process: subprocess.Popen) -> None:
        """Interrupt a process and wait for it."""
        self._processes.remove(process)
        process.send_signal(signal.SIGINT)
        process.wait(30)

    def begin_anew(self) -> None:
        """Deactivate and activate the node, which then counts without what the first frames cost; forget what came.

        Raises:
            DdsError: it does not follow.
        """
        client = self._node.create_client(ChangeState, "depth_node/change_state")
        self.spin_until(client.service_is_ready, "the node's services", 60)
        for transition, state in ((Transition.TRANSITION_DEACTIVATE, "inactive"), (Transition.TRANSITION_ACTIVATE, "active")):
            client.call_async(ChangeState.Request(transition=Transition(id=transition)))  # its answer: the diagnostics
            self.spin_until(lambda state=state: self.said.get("state") == state, f"the node to be {state}", 60)
        self._node.destroy_client(client)
        self.latencies.clear()

    def memory(self) -> dict[str, float]:
        """MiB of the node: now, and at most."""
        text = Path(f"/proc/{self._processes[0].pid}/status").read_text()
        found = dict(re.findall(r"(VmRSS|VmHWM):\s+(\d+) kB", text))
        return {"now_mib": int(found["VmRSS"]) / 1024, "most_mib": int(found["VmHWM"]) / 1024}

    def close(self) -> None:
        """End all processes."""
        for process in list(self._processes):
            self.end(process)
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)
        self._folder.cleanup()

    def _receiver(self, topic: str):
        def receive(cdr: bytes) -> None:
            self.latencies[topic].append(time.time() - read_header(cdr).stamp_ns * 1e-9)

        return receive

    def _listen(self, array: DiagnosticArray) -> None:
        for status in array.status:
            if status.name.startswith(self.namespace.lstrip("/")):
                self.said = {pair.key: pair.value for pair in status.values}


def measure(parameters: dict[str, object], width: int, height: int, frames: int, rate: float = 0.0) -> dict[str, object]:
    """One camera of a size through a node with these parameters.

    Args:
        frames: how many depth images to wait for, after a few to warm up.
        rate: images per second; 0: a little fewer than the node can take, so that none waits for the one before.

    Returns:
        receive: p50 and p99 in milliseconds from the camera's stamp to the arrival in the node.
        stages: the same by name, as the node's diagnostics have them.
        latency: the same by topic, from the camera's stamp to the arrival in the consumer.
        node: the same from an image's arrival in the node to the last output's departure.
        memory: MiB of the node.
    """
    bench = Bench(parameters)
    try:
        bench.spin_until(lambda: bench.said.get("network") == "ready", "the network", _PATIENCE)
        camera = ("depth_anything_ros.benchmark.camera", "--width", str(width), "--height", str(height), "--rate")
        process = bench.start(*camera, str(rate or 2.0))
        bench.spin_until(lambda: len(bench.latencies["depth/points"]) >= 4, "depth", _PATIENCE)
        bench.end(process)
        rate = rate or 0.8 / min(bench.latencies["depth/points"])
        bench.begin_anew()
        bench.start(*camera, f"{rate:.3f}")
        bench.spin_until(lambda: len(bench.latencies["depth/points"]) >= frames, "depth", _PATIENCE)
        before = dict(bench.said)
        bench.spin_until(lambda: bench.said != before, "diagnostics", 10)
        rows = {_TIME.fullmatch(key): text for key, text in bench.said.items()}
        stages = {key[1]: dict(zip(("p50", "p99"), map(float, text.split()))) for key, text in rows.items() if key}
        return {
            "receive": stages.pop("receive"),
            "stages": stages,
            "latency": {topic: spread(found) for topic, found in bench.latencies.items()},
            "node": {name: float(bench.said[f"latency {name} (ms)"]) for name in ("p50", "p99")},
            "memory": bench.memory(),
            "counts": {name: int(bench.said[name]) for name in ("images received", "frames published", "frames dropped")},
        }
    finally:
        bench.close()


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value) or '""'
