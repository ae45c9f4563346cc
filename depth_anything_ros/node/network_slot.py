# SPDX-License-Identifier: Apache-2.0
"""The network that runs, and the loading of another one beside it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..inference import DepthEstimator
from .parameters import NetworkSettings, Settings

_WARM_UP_IMAGE = (480, 640, 3)


@dataclass(frozen=True)
class Running:
    """A loaded network and the settings that belong to it; replaced as a whole, between two frames."""

    estimator: DepthEstimator
    settings: Settings


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
        self._log = log
        self._lock = threading.Lock()
        self._loader: threading.Thread | None = None

    @property
    def loading(self) -> bool:
        """Whether a load is under way."""
        return self._loader is not None

    def request(self, settings: Settings) -> None:
        """Run with these settings: at once if the network is the one that runs, else as soon as theirs is loaded."""
        with self._lock:
            self.requested, self.error = settings, ""
            if self.running and self.running.settings.network == settings.network:
                self.running = Running(self.running.estimator, settings)
            elif self._loader is None:
                self._loader = threading.Thread(target=self._load_until_met, name="network loader", daemon=True)
                self._loader.start()

    def clear(self) -> None:
        """Let go of the network; a load under way comes to nothing."""
        with self._lock:
            self.running = self.requested = None
            self.error = ""

    def _load_until_met(self) -> None:
        """Load what is requested, and again if something else has been requested meanwhile. One network at a time."""
        while True:
            with self._lock:
                wanted, running = self.requested, self.running
                if wanted is None or self.error or (running and running.settings.network == wanted.network):
                    self._loader = None
                    return
            try:
                estimator, error = self._load(wanted.network, running), ""
            except Exception as problem:  # any kind: a loader thread must never die silently
                estimator, error = None, f"{type(problem).__name__}: {problem}"
            with self._lock:
                if self.requested is None or self.requested.network != wanted.network:
                    continue
                self.error = error
                if estimator:
                    self.running = Running(estimator, self.requested)
            if estimator:
                where = f"on {estimator.device} ({estimator.precision})"
                self._log(f"running {estimator.model}/{estimator.encoder}, input size {estimator.input_size}, {where}")

    def _load(self, wanted: NetworkSettings, running: Running | None) -> DepthEstimator:
        """A network that has run once. If only the input size differs, it is the one that runs already."""
        if running and replace(running.settings.network, input_size=wanted.input_size) == wanted:
            estimator = running.estimator.with_input_size(wanted.input_size)
        else:
            self._log(f"loading {wanted.model}/{wanted.encoder} from {wanted.checkpoint or 'the published checkpoint'}")
            estimator = DepthEstimator.create(
                wanted.model,
                wanted.encoder,
                wanted.checkpoint,
                wanted.input_size,
                wanted.device,
                wanted.precision,
                allow_noncommercial=True,  # the licence was checked with the other parameters
            )
        estimator.predict(np.zeros(_WARM_UP_IMAGE, np.uint8))  # buffers, kernels, and a look for NaN
        return estimator
