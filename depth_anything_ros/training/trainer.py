# SPDX-License-Identifier: Apache-2.0
"""The training itself: steps, running average, validation, and a state from which it goes on exactly where it was."""

from __future__ import annotations

import copy
import hashlib
import math
import pickle
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from ..inference import preprocess
from ..models import CheckpointError, DepthNetwork
from ..models.files import whole_file
from .draws import Draws
from .optimise import Settings, average_into, in_training, loss_of, optimiser_of, set_rates
from .validation import Figures, Validation

_SAVE_SECONDS = 600.0  # of work that a power cut may cost
_MOST_BAD_STEPS = 10


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to do."""


class Trainer:
    """One training. Everything that is random depends on the seed and the step, so that nothing of it has to be kept.

    Attributes:
        network: as it is being trained.
        average: the running average of its weights, which is what is validated and kept.
        step: steps that are done.
        best: the figures of the best validation so far, and its step; None before the first.
        first: the figures before the first step.
    """

    def __init__(self, network: DepthNetwork, draws: Draws, validation: Validation, settings: Settings, device: torch.device):
        self.draws, self.validation, self.settings, self.device = draws, validation, settings, device
        self.network = network.to(device)
        self.average = copy.deepcopy(network).requires_grad_(False).eval()
        self.optimiser = optimiser_of(self.network, settings)
        self.step, self.loss = 0, math.nan
        self.best: tuple[Figures, int] | None = None
        self.first: Figures | None = None
        self._bad = 0

    def run(
        self,
        state: Path,
        validated: Callable[[Figures, bool], None],
        stop: Callable[[], bool] = lambda: False,
        progress: Callable[[float], object] = lambda loss: None,
    ) -> bool:
        """Train until the end, or until `stop` says so; False if it did.

        Args:
            state: the file to go on from, written after each validation, every ten minutes, and when stopped.
            validated: told the figures before the first step and after each `validate_every`, and whether they are the best.
            progress: told the loss of each step.

        Raises:
            TrainingError: the device has not memory enough, or the loss is not finite.
        """
        if self.first is None:
            self._validate(validated)
            self.save(state)
        saved = time.monotonic()
        for batch in self.draws.from_step(self.step, self.settings.steps):
            if stop():
                self.save(state)
                return False
            images = preprocess(batch.images, self.draws.size, self.device, self.network.model)
            progress(self._learn(images, torch.from_numpy(batch.depth).to(self.device)))
            if self.step % self.settings.validate_every == 0 or self.step == self.settings.steps:
                self._validate(validated)
                self.save(state)
                saved = time.monotonic()
            elif time.monotonic() - saved > _SAVE_SECONDS:
                self.save(state)
                saved = time.monotonic()
        return True

    def _learn(self, images: torch.Tensor, depth: torch.Tensor) -> float:
        """One step; the loss before it."""
        set_rates(self.optimiser, self.step, self.settings)
        try:
            loss = loss_of(in_training(self.network, self.settings), images, depth, self.settings.half)
            loss.backward()
        except torch.cuda.OutOfMemoryError as error:
            raise TrainingError(
                f"{self.device} has not memory enough for {len(images)} images of {images.shape[3]}x{images.shape[2]}: lower "
                "--batch or --input-size, or set --checkpointing"
            ) from error
        trained = [parameter for group in self.optimiser.param_groups for parameter in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(trained, self.settings.clip)
        value = float(loss.detach())
        if math.isfinite(value) and math.isfinite(float(norm)):
            self.optimiser.step()
            average_into(self.average, self.network, self.step, self.settings.average)
            self.loss = value if math.isnan(self.loss) else self.loss + 0.1 * (value - self.loss)
            self._bad = 0
        else:
            self._bad += 1
        self.optimiser.zero_grad(set_to_none=True)
        self.step += 1
        if self._bad >= _MOST_BAD_STEPS:
            raise TrainingError(f"the loss was not finite for {self._bad} steps: lower --rate, or look at the depth images")
        return value

    def _validate(self, validated: Callable[[Figures, bool], None]) -> None:
        figures = self.validation.figures(self.average)
        if math.isnan(figures.abs_rel):
            raise TrainingError("no held-out image has 10 valid pixels, or the network says NaN: look at the depth images")
        if self.first is None:
            self.first = figures
        better = self.best is None or figures.abs_rel < self.best[0].abs_rel
        if better:
            self.best = figures, self.step
        validated(figures, better)

    def save(self, path: Path) -> None:
        """Write all that `resume` needs; the file is the old one or the new one, never half of it.

        Raises:
            OSError: it cannot be written.
        """
        state = {
            "settings": _fixed(self.settings, self.draws),
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "loss": self.loss,
            "first": asdict(self.first) if self.first else None,
            "best": (asdict(self.best[0]), self.best[1]) if self.best else None,
        }
        with whole_file(path) as partial:
            torch.save(state, partial)

    def resume(self, path: Path) -> None:
        """Go on from a file that `save` wrote.

        Raises:
            CheckpointError: it is none, or it is of another training.
        """
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            settings = _fixed(self.settings, self.draws)
            if state["settings"] != settings:
                odd = [name for name, value in settings.items() if state["settings"].get(name) != value]
                raise CheckpointError(f"'{path}' is of a training with another {', '.join(odd)}")
            self.network.load_state_dict(state["network"])
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
        except FileNotFoundError as error:
            raise CheckpointError(f"there is no '{path}' to go on from: begin anew, with another --output") from error
        except (RuntimeError, EOFError, OSError, KeyError, ValueError, pickle.UnpicklingError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"'{path}' is damaged or of another network: {str(error).splitlines()[0]}") from error
        self.step, self.loss = state["step"], state["loss"]
        self.first = Figures(**state["first"]) if state["first"] else None
        self.best = (Figures(**state["best"][0]), state["best"][1]) if state["best"] else None


def _fixed(settings: Settings, draws: Draws) -> dict:
    """What must be the same for a training to go on as it would have."""
    said = asdict(settings) | asdict(draws.augmentation) | asdict(draws.bounds)
    names = hashlib.sha256("\n".join(pair.image.name for pair in draws.pairs).encode()).hexdigest()[:12]
    images = f"{len(draws.pairs)} ({names})"
    return said | {"input": list(draws.size), "batch": draws.batch, "seed": draws.seed, "images": images}
