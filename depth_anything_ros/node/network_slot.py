# SPDX-License-Identifier: Apache-2.0
"""The network that runs, and the loading of another one beside it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..inference import DepthEstimator
from .parameters import NetworkSettings

_WARM_UP_IMAGE = (480, 640, 3)


class NetworkSlot:
    """Holds the estimator in use; `request` loads another in the background and swaps it in when it has proved to run.

    Attributes:
        estimator: what to use for the next frame; None until the first load is done.
        loaded: the settings of `estimator`.
        error: why the last load failed; empty if it did not.
    """

    def __init__(self, log: Callable[[str], None]):
        self.estimator: DepthEstimator | None = None
        self.loaded: NetworkSettings | None = None
        self.requested: NetworkSettings | None = None
        self.error = ""
        self._log = log
        self._lock = threading.Lock()

    @property
    def loading(self) -> bool:
        """Whether a load is under way."""
        with self._lock:
            return self.requested != self.loaded and not self.error

    def request(self, settings: NetworkSettings) -> None:
        """Start to load; a request that is under way is overtaken."""
        with self._lock:
            if settings == self.requested:
                return
            self.requested, self.error = settings, ""
        threading.Thread(target=self._load, args=(settings,), name="network loader", daemon=True).start()

    def clear(self) -> None:
        """Let go of the network; a load under way comes to nothing."""
        with self._lock:
            self.estimator = self.loaded = self.requested = None
            self.error = ""

    def _load(self, settings: NetworkSettings) -> None:
        try:
            estimator = self._prepare(settings)
            estimator.predict(np.zeros(_WARM_UP_IMAGE, np.uint8))  # buffers, kernels, and a look for NaN
        except Exception as error:  # any kind: a loader thread must never die silently
            with self._lock:
                if self.requested == settings:
                    self.error = f"{type(error).__name__}: {error}"
            return
        with self._lock:
            if self.requested != settings:
                return
            self.estimator, self.loaded = estimator, settings
        where = f"on {estimator.device} ({estimator.precision})"
        self._log(f"running {settings.model}/{settings.encoder}, input size {estimator.input_size}, {where}")

    def _prepare(self, settings: NetworkSettings) -> DepthEstimator:
        """Only the input size differs: the network in use again. Anything else: a new one."""
        with self._lock:
            current, loaded = self.estimator, self.loaded
        if current and loaded and replace(loaded, input_size=settings.input_size) == settings:
            return current.with_input_size(settings.input_size)
        self._log(f"loading {settings.model}/{settings.encoder} from {settings.checkpoint or 'the published checkpoint'}")
        return DepthEstimator.create(
            settings.model,
            settings.encoder,
            settings.checkpoint,
            settings.input_size,
            settings.device,
            settings.precision,
            settings.allow_noncommercial,
        )
