# SPDX-License-Identifier: Apache-2.0
"""Processes of our modules that need not load torch, timm and rclpy: forked from one that has, and has done nothing else."""

import gc
import importlib
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

_PRELOADED = ["depth_anything_ros.node.depth_node", "depth_anything_ros.models.backbone", __name__]
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(_PRELOADED)


class WarmProcess:
    """What `subprocess.Popen([python, "-m", module, *arguments])` is, with its output in a file; the methods are Popen's."""

    def __init__(self, module: str, arguments: list[str], log: Path):
        log.touch()
        self._process = _FORKS.Process(target=_run, args=(module, arguments, str(log), dict(os.environ)), daemon=True)
        self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    returncode = property(poll)

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()


def _run(module: str, arguments: list[str], log: str, environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = [module, *arguments]
    code = _code_of(module)
    gc.collect()  # multiprocessing ends at once, but Fast DDS has shared memory to give back with the last node
    sys.exit(code)


def _code_of(module: str) -> int | None:
    try:
        return importlib.import_module(module).main()
    except SystemExit as end:
        return end.code
