#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What OpenMP's spinning idle threads cost on a machine that has other work: passes of the embedded model, beside busy cores.

    python benchmarks/idle_threads.py

Both policies run in turns, each in a process of its own, while one other process keeps one core busy.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

PASSES, TURNS = 40, 3


def measure() -> None:
    """Print every pass in milliseconds."""
    import numpy as np

    from depth_anything_ros.inference import DepthEstimator

    estimator, image = DepthEstimator.create("demo", device="cpu"), np.zeros((480, 640, 3), np.uint8)
    estimator.predict(image)
    for _ in range(PASSES):
        started = time.perf_counter()
        estimator.predict(image)
        print((time.perf_counter() - started) * 1000)
        time.sleep(0.05)


def main() -> None:
    """Median and worst pass of each policy."""
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    times: dict[str, list[float]] = {"ACTIVE": [], "PASSIVE": []}
    try:
        for _ in range(TURNS):
            for policy, collected in times.items():
                environment = os.environ | {"OMP_WAIT_POLICY": policy}
                result = subprocess.run([sys.executable, __file__, "measure"], env=environment, capture_output=True, check=True)
                collected += [float(line) for line in result.stdout.split()]
    finally:
        busy.kill()
    for policy, collected in times.items():
        collected.sort()
        print(f"{policy:8} median {collected[len(collected) // 2]:.0f} ms, worst {collected[-1]:.0f} ms")


if __name__ == "__main__":
    measure() if sys.argv[1:] == ["measure"] else main()
