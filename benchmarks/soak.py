# SPDX-License-Identifier: Apache-2.0
"""A 1080p camera at 30 Hz on a machine with more to do than it can: does depth get older, does memory grow?

    python benchmarks/soak.py [--minutes 10]

Two processes that compute all the time take the cores from depth_node (embedded model, all outputs read). Printed each minute:
p50 and p99 of the age of depth images in the consumer, the node's memory, and images received, published and dropped.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time

import numpy as np

from depth_anything_ros.benchmark.over_dds import Bench


def busy() -> None:
    """Compute for ever."""
    matrix = np.ones((256, 256), np.float32)
    while True:
        matrix @ matrix


def main() -> None:
    """Run, and print a row of a table each minute."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--busy", type=int, default=os.cpu_count(), help="processes that take the cores away")
    options = parser.parse_args()
    bench = Bench({"model": options.model})
    others = [multiprocessing.get_context("spawn").Process(target=busy, daemon=True) for _ in range(options.busy)]
    try:
        bench.spin_until(lambda: bench.said.get("network") == "ready", "the network", 120)
        for other in others:
            other.start()
        bench.start("depth_anything_ros.benchmark.camera", "--width", "1920", "--height", "1080", "--rate", "30")
        print(
            "| minute | age p50, ms | p99, ms | memory, MiB | received | published | dropped |\n|---|---|---|---|---|---|---|"
        )
        for minute in range(options.minutes):
            end = time.monotonic() + 60
            ages = bench.latencies["depth/image"]
            ages.clear()
            bench.spin_until(lambda end=end: time.monotonic() > end, "a minute", 90)
            p50, p99 = np.percentile(ages, (50, 99)) * 1000
            counts = [bench.said[name] for name in ("images received", "frames published", "frames dropped")]
            row = [f"{p50:.0f}", f"{p99:.0f}", f"{bench.memory()['now_mib']:.0f}", *counts]
            print(f"| {minute + 1} | {' | '.join(row)} |", flush=True)
    finally:
        for other in others:
            other.kill()
        bench.close()


if __name__ == "__main__":
    main()
