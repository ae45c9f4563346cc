# SPDX-License-Identifier: Apache-2.0
"""Same input, same bytes: how this process computes."""

from __future__ import annotations

import os

import torch

_MANY_CORES = 4  # with more, one is left to callbacks and to the robot's other processes


def _usual_threads() -> int:
    threads = torch.get_num_threads()  # cores that we may run on, or OMP_NUM_THREADS
    return threads - 1 if threads > _MANY_CORES and "OMP_NUM_THREADS" not in os.environ else threads


_CPU_THREADS = _usual_threads()


def make_deterministic(on: bool) -> None:
    """One order of every sum: deterministic kernels and one CPU thread; off: as many as leave callbacks a core."""
    if on:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.use_deterministic_algorithms(on, warn_only=True)
    torch.backends.cudnn.deterministic = on
    torch.set_num_threads(1 if on else _CPU_THREADS)
