# SPDX-License-Identifier: Apache-2.0
"""How good a network is on images that are held out: figures as of `depth_eval`, at the size of the sensor's depth."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..inference import preprocess
from ..inference.prediction import Prediction
from ..models import METRIC, DepthNetwork
from ..replay.evaluation import errors_of
from .samples import Bounds, Pair, read

_FEWEST = 10  # valid pixels of an image that counts


@dataclass(frozen=True)
class Figures:
    """Means over images of the errors of Eigen et al., 2014, Table 1. `rmse` in metres."""

    abs_rel: float
    rmse: float
    delta1: float


@dataclass(frozen=True)
class Shown:
    """One image with truth and prediction, (h, w) float32 metres, NaN where there is no truth."""

    rgb: np.ndarray
    truth: np.ndarray
    depth: np.ndarray


@dataclass(frozen=True)
class Validation:
    """The held-out pairs. `size`: (width, height) of the network's input."""

    pairs: Sequence[Pair]
    bounds: Bounds
    size: tuple[int, int]

    def figures(self, network: DepthNetwork, progress: Callable[[], object] = lambda: None) -> Figures:
        """The figures; NaN where no image has truth enough. The network is left in evaluation mode."""
        rows = []
        for pair in self.pairs:
            rgb, truth = read(pair)
            valid = self.bounds.valid(truth)
            progress()
            if int(valid.sum()) < _FEWEST:
                continue
            depth = depth_of(network, rgb, truth, valid, self.size)
            errors = errors_of(depth[valid].astype(np.float64), truth[valid].astype(np.float64))
            rows.append((errors.abs_rel, errors.rmse, errors.delta1))
        return Figures(*map(float, np.mean(rows, axis=0))) if rows else Figures(*[math.nan] * 3)

    def shown(self, network: DepthNetwork, count: int) -> list[Shown]:
        """Some of the images for a picture, evenly chosen."""
        found = []
        for index in sorted(set(np.linspace(0, len(self.pairs) - 1, count).round().astype(int).tolist())):
            rgb, truth = read(self.pairs[index])
            valid = self.bounds.valid(truth)
            if int(valid.sum()) >= _FEWEST:
                depth = depth_of(network, rgb, truth, valid, self.size)
                found.append(Shown(rgb, np.where(valid, truth, np.nan), depth))
        return found


@torch.inference_mode()
def depth_of(network: DepthNetwork, rgb: np.ndarray, truth: np.ndarray, valid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w) float32 metres at the truth's size; of a relative network, after the alignment of `aligned`."""
    device = next(network.parameters()).device
    values = network.eval()(preprocess([rgb], size, device, network.model)).float()[0]
    found = Prediction(values, network.kind, truth.shape, network.model.align_corners).at_image_size()
    return found if network.kind == METRIC else aligned(found, truth, valid)


def aligned(inverse: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """(h, w) metres of relative inverse depth, by the scale and shift that fit the truth's inverse depth best.

    Least squares in inverse depth over the valid pixels of this image, as MiDaS is evaluated (Ranftl et al. 2022, section 5);
    what then lies beyond the image's farthest truth, or behind the camera, is put there.
    """
    x, y = inverse[valid].astype(np.float64), 1 / truth[valid].astype(np.float64)
    centred = x - x.mean()
    spread = float(centred @ centred)
    scale = float(centred @ (y - y.mean())) / spread if spread > 0 else 0.0
    fitted = y.mean() + scale * (inverse.astype(np.float64) - x.mean())
    return (1 / np.maximum(fitted, y.min())).astype(np.float32)
