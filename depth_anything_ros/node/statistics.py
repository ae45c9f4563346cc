# SPDX-License-Identifier: Apache-2.0
"""Counts, rates and latencies of one camera, safe to feed from any thread, and their report for /diagnostics."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

_WINDOW = 5.0  # seconds over which rates and recent problems are judged
_REPEAT = 5.0  # seconds before the same problem is logged again


class Statistics:
    """What happened to the frames of one camera. Times are monotonic seconds."""

    def __init__(self):
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Start to count anew."""
        with self._lock:
            self.received = self.published = self.dropped = 0
            self.problems: Counter[str] = Counter()
            self.skips: Counter[str] = Counter()
            self.last_problem = ""
            self._last_problem_at = -np.inf
            self._logged: dict[str, float] = {}
            self._arrivals: deque[float] = deque(maxlen=2000)
            self._departures: deque[float] = deque(maxlen=2000)
            self._latencies: deque[float] = deque(maxlen=300)
            self._stages: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=300))
            self.started = time.monotonic()

    def arrived(self, replaced: bool) -> None:
        """An image came in; `replaced`: an older one was dropped for it."""
        with self._lock:
            self.received += 1
            self.dropped += replaced
            self._arrivals.append(time.monotonic())

    def departed(self, latency: float, network: float) -> None:
        """All outputs of a frame went out, `latency` seconds after it came in, of which it was `network` seconds in there."""
        with self._lock:
            self.published += 1
            self._departures.append(time.monotonic())
            self._latencies.append(latency)
            self._stages["network"].append(network)
            self._stages["all but the network"].append(latency - network)

    def spent(self, stage: str, seconds: float) -> None:
        """A stage of a frame's way took that long."""
        with self._lock:
            self._stages[stage].append(seconds)

    @contextmanager
    def timing(self, stage: str) -> Iterator[None]:
        """`spent` on what happens inside."""
        start = time.perf_counter()
        yield
        self.spent(stage, time.perf_counter() - start)

    def skipped(self, why: str) -> None:
        """An image was taken but not worked on."""
        with self._lock:
            self.skips[why] += 1

    def problem(self, kind: str, text: str) -> bool:
        """Count a problem that cost a frame or an output; True if it is time to log this kind (again)."""
        now = time.monotonic()
        with self._lock:
            self.problems[kind] += 1
            self.last_problem, self._last_problem_at = text, now
            due = now - self._logged.get(kind, -np.inf) >= _REPEAT
            if due:
                self._logged[kind] = now
            return due

    @property
    def silence(self) -> float:
        """Seconds since the last image, or since the start."""
        with self._lock:
            return time.monotonic() - (self._arrivals[-1] if self._arrivals else self.started)

    @property
    def troubled(self) -> bool:
        """Whether there was a problem a moment ago."""
        with self._lock:
            return time.monotonic() - self._last_problem_at < _WINDOW

    def report(self) -> dict[str, str]:
        """Name -> value, in the order of display."""
        with self._lock:
            p50, p99 = np.percentile(self._latencies, (50, 99)) * 1000 if self._latencies else (0.0, 0.0)
            rows = {
                "input rate (Hz)": f"{self._rate(self._arrivals):.1f}",
                "output rate (Hz)": f"{self._rate(self._departures):.1f}",
                "images received": str(self.received),
                "frames published": str(self.published),
                "frames dropped": str(self.dropped),
                "latency p50 (ms)": f"{p50:.1f}",
                "latency p99 (ms)": f"{p99:.1f}",
                "last error": self.last_problem,
            }
            for stage, seconds in self._stages.items():
                p50, p99 = np.percentile(seconds, (50, 99)) * 1000
                rows[f"time {stage} p50, p99 (ms)"] = f"{p50:.2f} {p99:.2f}"
            rows |= {f"frames {why}": str(count) for why, count in sorted(self.skips.items())}
            return rows | {f"problems: {kind}": str(count) for kind, count in sorted(self.problems.items())}

    def _rate(self, times: deque[float]) -> float:
        now = time.monotonic()
        span = min(_WINDOW, max(now - self.started, 1e-3))
        return sum(now - t < span for t in times) / span
