# SPDX-License-Identifier: Apache-2.0
"""Which backend executes a network: the first of its candidates that says what torch says in float32."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import torch

from ..models import DepthNetwork, Examination
from .backends import Backend, BackendError, Candidate, open_backend
from .backends.torch_backend import TorchBackend
from .memory import release_memory, trim_memory
from .preprocessing import preprocess
from .proof import difference, known_image, reference_output

# In this process: torch's export changes torch itself while it works, and memory is short while a network is compiled.
_ONE_AT_A_TIME = threading.Lock()
_Log = Callable[[str], None]


class Executor:
    """Holds a network and what executes it. `prepare` on any thread, `run` on one at a time.

    Attributes:
        network: in float32 on the CPU: what everything is measured against.
        backend: the one in use; None before the first `prepare`.
        refused: what was tried and did not do, with the reasons.
    """

    def __init__(self, network: DepthNetwork, device: torch.device, candidates: list[Candidate], log: _Log = lambda line: None):
        self.network, self.device = network, device
        self.backend: Backend | None = None
        self.refused: list[str] = []
        self._candidates, self._log = list(candidates), log
        self._ready: dict[tuple[int, int], Backend] = {}  # the one used last at the end
        self._attempts: dict[tuple[int, int], threading.Thread] = {}
        self._used: Candidate | None = None  # that `backend` was opened for
        self._examiner: TorchBackend | None = None
        self._table = threading.Lock()  # never held for long

    def ready(self, size: tuple[int, int]) -> bool:
        """Whether inputs of (width, height) can be run at once."""
        return size in self._ready

    def prepare(self, size: tuple[int, int]) -> None:
        """Get ready for inputs of (width, height): open, compile, prove. Seconds; minutes where an engine is built.

        Raises:
            BackendError: not even torch in float32 can run it (out of memory, a lost device).
        """
        if self.ready(size):
            return
        with _ONE_AT_A_TIME:
            backend = self.backend if self._used == self._candidates[0] else None
            while not self.ready(size):
                backend, problem = self._tried(backend, size)
                if problem:
                    if len(self._candidates) == 1:
                        raise BackendError(problem)
                    self.refused.append(f"{' '.join(filter(None, self._candidates.pop(0)))} at {size[0]}x{size[1]}: {problem}")
                    self._log(f"backend refused: {self.refused[-1]}")
                    backend = None
                else:
                    self._take(backend, size)

    def _tried(self, backend: Backend | None, size: tuple[int, int], again: bool = True) -> tuple[Backend | None, str]:
        """The first candidate, prepared for a size, and what is wrong with it. What may pass is tried again."""
        try:
            backend = backend or open_backend(self._candidates[0], self.network, self.device)
            backend.prepare(size[1], size[0])
            return backend, self._disproof(backend, size)
        except BackendError as error:
            return None, str(error)
        except Exception as error:  # each runtime has its own kinds
            problem = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        if not again:
            return None, problem
        release_memory()
        return self._tried(backend, size, again=False)

    def _take(self, backend: Backend, size: tuple[int, int]) -> None:
        """From now on run inputs of this size by this backend, and by no other."""
        with self._table:
            if backend is not self.backend:
                self.backend, self._used, self._ready = backend, self._candidates[0], {}
            self._ready[size] = backend
            forgotten = next(iter(self._ready)) if len(self._ready) > backend.max_sizes else None
            if forgotten:
                del self._ready[forgotten]
        if forgotten:
            backend.forget(forgotten[1], forgotten[0])
        trim_memory()  # of the pass in float32, and of what was exported

    def begin(self, size: tuple[int, int]) -> bool:
        """Whether inputs of (width, height) can be run at once; if not, they are prepared for in the background.

        After a failure, too: `run` then says what is wrong.
        """
        if self.ready(size):
            return True
        attempt = self._attempts.get(size)
        if not attempt:
            attempt = threading.Thread(target=self._attempt, args=(size,), name="network size", daemon=True)
            self._attempts[size] = attempt
            attempt.start()
        return not attempt.is_alive()

    def _attempt(self, size: tuple[int, int]) -> None:
        with contextlib.suppress(Exception):  # the thread stays on record: `run` tries again, and lets the error out
            self.prepare(size)
            self._attempts.pop(size, None)

    def __str__(self) -> str:
        backend = self.backend
        return f"{backend.name} {backend.precision} on {self.device}" if backend else f"not yet prepared on {self.device}"

    def run(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, h, w) float32 normalised images on the device -> (B, h, w) float32 there."""
        return self._at_hand((images.shape[-1], images.shape[-2])).run(images)

    def examine(self, images: torch.Tensor) -> Examination:
        """As `run`, but all that the network can say: by torch, which may not be what executes it otherwise."""
        if self._candidates[0][0] == "torch":
            return self._at_hand((images.shape[-1], images.shape[-2])).examine(images)
        if self._examiner is None:
            self._examiner = open_backend(self._candidates[-1], self.network, self.device)
        return self._examiner.examine(images)

    def _at_hand(self, size: tuple[int, int]) -> Backend:
        """The backend for inputs of (width, height), prepared if need be."""
        backend = None
        while not backend:  # another thread may let go of it in between
            self.prepare(size)
            with self._table:
                backend = self._ready.pop(size, None)
                if backend:
                    self._ready[size] = backend
        self._attempts.pop(size, None)
        return backend

    def _disproof(self, backend: Backend, size: tuple[int, int]) -> str:
        """What a backend says wrongly of a known image; empty: nothing. torch in float32 on the CPU is what is believed."""
        if (backend.name, backend.precision, backend.device.type) == ("torch", "fp32", "cpu"):
            return ""
        images = preprocess([known_image(size[1], size[0])], size, torch.device("cpu"), self.network.model)
        found = difference(backend.run(images.to(backend.device)), reference_output(self.network, images), self.network.kind)
        return "" if found.small else f"differs from torch in float32: {found}"
