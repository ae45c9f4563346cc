# SPDX-License-Identifier: Apache-2.0
"""What a training leaves behind for a person: a table, log.csv, and pictures."""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from ..geometry import colorize
from ..models import save_network
from ..models.zoo import noncommercial
from .optimise import rate_at
from .samples import write_picture
from .trainer import Trainer
from .validation import Figures, Shown

_COLUMNS = ("step", "loss", "rate", "abs_rel", "rmse", "delta1", "seconds")
_WIDTH = 320  # of a picture's column
_WORST = 0.5  # relative error that gets the last colour

SHOWN = 4  # images in a picture
TUNED = "tuned.safetensors"  # the best network of a run

HEADING = f"{'step':>8}{'loss':>10}{'AbsRel':>10}{'RMSE, m':>10}{'delta1':>10}"


class Keeper:
    """Writes down each validation, and the network if it is the best.

    Attributes:
        file: of the network.
        licence: of its weights.
    """

    def __init__(self, trainer: Trainer, output: Path, origin: str, licence: str, say: Callable[[str], object] = print):
        self.file, self.licence = output / TUNED, licence
        self._trainer, self._output, self._origin, self._say = trainer, output, origin, say
        self._begun = time.monotonic()

    def validated(self, figures: Figures, best: bool) -> None:
        """See `Trainer.run`."""
        trainer, step = self._trainer, self._trainer.step
        if best:
            note = f"step {step}, {len(trainer.draws.pairs)} images, AbsRel {figures.abs_rel:.4f} on images held out"
            save_network(trainer.average, self.file, self._origin, self.licence, note)
        self._say(table_row(step, trainer.loss, figures, best))
        rate = trainer.settings.rate * rate_at(max(0, step - 1), trainer.settings)
        log_row(self._output / "log.csv", step, trainer.loss, rate, figures, time.monotonic() - self._begun)
        strip(trainer.validation.shown(trainer.average, SHOWN), self._output / "pictures" / f"{step:06d}.png")

    def parameters(self) -> Path:
        """Write the node's parameters beside the network."""
        path = self.file.with_suffix(".yaml")
        lines = ["model: custom", "encoder: ''", f"checkpoint: {json.dumps(str(self.file))}", "input_size: 0"]
        lines += ["allow_noncommercial: true"] if noncommercial(self.licence) else []
        head = ["# Written by depth_finetune", "/**:", "  ros__parameters:"]
        path.write_text("\n".join([*head, *(f"    {line}" for line in lines), ""]))
        return path


def table_row(step: int, loss: float, figures: Figures, best: bool) -> str:
    """A line below `HEADING`."""
    line = f"{step:8d}" + (" " * 10 if math.isnan(loss) else f"{loss:10.4f}")
    line += f"{figures.abs_rel:10.4f}{figures.rmse:10.3f}{figures.delta1:10.4f}"
    return line + ("  best" if best else "")


def log_row(path: Path, step: int, loss: float, rate: float, figures: Figures, seconds: float) -> None:
    """A row of log.csv. Rows of later steps, which a resumed run makes again, go."""
    kept: list[list[str]] = []
    if path.is_file():
        with path.open(newline="") as file:
            kept = [row for row in list(csv.reader(file))[1:] if row and int(row[0]) < step]
    row = [step, f"{loss:.5f}", f"{rate:.3e}", f"{figures.abs_rel:.5f}", f"{figures.rmse:.5f}", f"{figures.delta1:.5f}"]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([_COLUMNS, *kept, [*row, f"{seconds:.1f}"]])


def strip(shown: Sequence[Shown], path: Path) -> None:
    """Image, truth, prediction and error of each, one below the other. Black: no truth; red: off by half or more."""
    rows = []
    for each in shown:
        low, high = _range(each.truth)
        error = np.abs(each.depth - each.truth) / each.truth
        cells = [_labelled(cv2.cvtColor(each.rgb, cv2.COLOR_RGB2BGR), "image")]
        cells += [_labelled(_colour(d, low, high), f"{n}, {low:.1f} to {high:.1f} m") for d, n in _depths(each)]
        cells.append(_labelled(_colour(error, _WORST, 0.0), f"error, mean {np.nanmean(error):.1%}"))
        rows.append(np.hstack(cells))
    _write(path, rows)


def before_and_after(before: Sequence[Shown], after: Sequence[Shown], path: Path) -> None:
    """Image, truth, and what the network said of it before and after."""
    rows = []
    for first, last in zip(before, after):
        low, high = _range(first.truth)
        cells = [_labelled(cv2.cvtColor(first.rgb, cv2.COLOR_RGB2BGR), "image")]
        for depth, name in ((first.truth, "truth"), (first.depth, "before"), (last.depth, "after")):
            error = "" if name == "truth" else f", off by {np.nanmean(np.abs(depth - first.truth) / first.truth):.1%}"
            cells.append(_labelled(_colour(depth, low, high), name + error))
        rows.append(np.hstack(cells))
    _write(path, rows)


def _depths(each: Shown) -> tuple[tuple[np.ndarray, str], ...]:
    return (each.truth, "truth"), (each.depth, "prediction")


def _range(truth: np.ndarray) -> tuple[float, float]:
    low, high = np.nanpercentile(truth, (2, 98))
    return float(low), float(max(high, low + 1e-3))


def _colour(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return colorize(torch.from_numpy(np.float32(values)), low, high, "turbo")


def _labelled(bgr: np.ndarray, text: str) -> np.ndarray:
    height = round(bgr.shape[0] * _WIDTH / bgr.shape[1])
    cell = cv2.resize(bgr, (_WIDTH, height), interpolation=cv2.INTER_NEAREST)
    cell[:20] = 0
    cv2.putText(cell, text, (6, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    return cell


def _write(path: Path, rows: list[np.ndarray]) -> None:
    if rows:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_picture(path, np.vstack(rows))
