# SPDX-License-Identifier: Apache-2.0
"""The network that runs, and the loading of another one beside it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..inference import DepthEstimator, ImageError, release_memory
from ..stream.network import load, located
from ..stream.settings import NetworkSettings, Settings

_TELL_EVERY = 10.0  # seconds
_USUAL = (640, 480, 0)
Shape = tuple[int, int, int]  # of what cameras send: width, height, and their own input size (0: the node's)


@dataclass(frozen=True)
class Running:
    """A loaded network and the settings that belong to it; replaced as a whole, between two frames."""

    estimator: DepthEstimator
    settings: Settings

    def sized(self, input_size: int) -> DepthEstimator:
        """The estimator for a camera with an input size of its own; 0: it has none."""
        return _sized(self.estimator, input_size)


class NetworkSlot:
    """Holds what runs; `request` brings in other settings, loading another network in the background if they need one.

    Attributes:
        running: what to use for the next frame; None until the first load is done.
        requested: the settings of the newest request.
        error: why the newest request could not be met; empty if it was, or still is being worked on.
    """

    def __init__(self, log: Callable[[str], None]):
        self.running: Running | None = None
        self.requested: Settings | None = None
        self.error = ""
        self._log, self._requested_at, self._told = log, 0.0, 0.0
        self._shapes: dict[str, Shape] = {}  # the last of each camera: what a network is got ready for before it runs
        self._lock = threading.Lock()
        self._one_load = threading.Lock()  # two networks being loaded at once may be one too many for the memory

    @property
    def loading(self) -> bool:
        """Whether what runs is not yet what was asked for."""
        with self._lock:
            return self.requested is not None and not self.error and not self._runs(self.requested.network)

    def tell_progress(self) -> None:
        """A line in the log now and then while a network is loading; call it a few times a second."""
        now = time.monotonic()
        if self.loading and now - self._told >= _TELL_EVERY:
            self._told = now
            self._log(f"still loading the network, after {now - self._requested_at:.0f} s (first use downloads, or builds)")

    def request(self, settings: Settings) -> None:
        """Run with these settings: at once if the network is the one that runs, else as soon as theirs is loaded."""
        with self._lock:
            loading = self.requested and not self.error and self.requested.network == settings.network
            self.requested, self.error = settings, ""
            if not loading:
                self._requested_at = self._told = time.monotonic()
            if self._runs(settings.network):
                self.running = Running(self.running.estimator, settings)
            elif not loading:
                threading.Thread(target=self._load, args=(settings.network,), name="network loader", daemon=True).start()

    def ready(self, camera: str, shape: Shape, running: Running | None) -> bool:
        """Whether what runs can predict a camera's images of this shape at once; if not, that is seen to in the background."""
        with self._lock:
            self._shapes[camera] = shape
        return running is not None and running.sized(shape[2]).begin(*shape[:2])

    def clear(self) -> None:
        """Let go of the network and its memory; a load under way comes to nothing."""
        with self._lock:
            self.running = self.requested = None
            self.error, self._shapes = "", {}
        release_memory()

    def _runs(self, network: NetworkSettings) -> bool:
        return self.running is not None and self.running.settings.network == network

    def _wanted(self, network: NetworkSettings) -> bool:
        """Whether a load still makes sense: nothing else has been requested since, and nobody else was quicker."""
        return self.requested is not None and self.requested.network == network and not self._runs(network)

    def _load(self, network: NetworkSettings) -> None:
        """On a thread of its own: a slow download that has been overtaken holds up nobody."""
        try:
            estimator, error = self._prepare(network), ""
        except Exception as problem:  # any kind: a loader thread must never die silently
            estimator, error = None, f"{type(problem).__name__}: {problem}"
        with self._lock:
            if not self._wanted(network):
                return
            self.error = error
            if estimator:
                self.running = Running(estimator, self.requested)
        if estimator:
            self._log(f"running {estimator.model}/{estimator.encoder}, input size {estimator.input_size}, {estimator.executor}")

    def _prepare(self, network: NetworkSettings) -> DepthEstimator | None:
        """A network that has run once; None if it is not wanted any more. If only sizes differ, it is reused."""
        with self._lock:
            running = self.running
        sizes = {"input_size": network.input_size, "max_tokens": network.max_tokens}
        if running and replace(running.settings.network, **sizes) == network:
            estimator = running.estimator.with_input_size(**sizes)
        else:
            self._log(f"loading {network.model}/{network.encoder} from {network.checkpoint or 'its own checkpoint'}")
            path = located(network)
            with self._one_load:
                if not self._wanted(network):
                    return None
                estimator = load(network, path, self._log)
        for width, height, input_size in set(self._shapes.values()) or {_USUAL}:
            with contextlib.suppress(ImageError):  # a camera's impossible images are that camera's trouble
                _sized(estimator, input_size).prepare(width, height)
        return estimator


def _sized(estimator: DepthEstimator, input_size: int) -> DepthEstimator:
    return estimator.with_input_size(input_size) if input_size else estimator
