# SPDX-License-Identifier: Apache-2.0
"""A backend's output against torch in float32: what it has to show before its first frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..models import METRIC, DepthNetwork

MEAN_LIMIT, P99_LIMIT = 0.01, 0.05


@dataclass(frozen=True)
class Difference:
    """Relative differences of all pixels: their mean, and the 99th percentile."""

    mean: float
    p99: float

    @property
    def small(self) -> bool:
        """Whether this is rounding and nothing else; NaN is not."""
        return self.mean < MEAN_LIMIT and self.p99 < P99_LIMIT

    def __str__(self) -> str:
        return f"mean {self.mean:.2%}, 99th percentile {self.p99:.2%}"


def difference(values: torch.Tensor, reference: torch.Tensor, kind: str) -> Difference:
    """How far values are from a reference of the same shape; Inf where they are not finite.

    Args:
        kind: of the output. metric: as a share of each pixel's metres. relative: of its value or of their mean, whichever is
            larger, since nothing can be near to 0 in proportion, and the shift of relative output is unknown anyway.
    """
    values, reference = values.cpu().double(), reference.cpu().double().abs()
    share = (values - reference).abs() / reference.clamp_min(1e-9 if kind == METRIC else float(reference.mean()) + 1e-9)
    share = torch.nan_to_num(share, nan=torch.inf)
    return Difference(float(share.mean()), float(np.percentile(share.numpy(), 99)))


def reference_output(network: DepthNetwork, images: torch.Tensor) -> torch.Tensor:
    """What the network says in float32, on the CPU."""
    with torch.inference_mode():
        return network(images.cpu())


def known_image(height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8: a floor of tiles up to a horizon, a shaded sky, posts; the same on every machine."""
    v, u = np.mgrid[0:height, 0:width] / np.array([height, width])[:, None, None] - 0.5
    below = np.maximum(v + 0.05, 1e-3)
    tiles = (np.floor(0.6 * u / below) + np.floor(0.3 / below)) % 2
    image = np.where(v > -0.05, 90 + 70 * tiles, 170 - 120 * v)[..., None] + np.array([10.0, 0.0, -15.0])
    for place, near, shade in ((-0.3, 0.35, 60.0), (0.05, 0.12, 120.0), (0.28, 0.22, 30.0)):
        post = (np.abs(u - place) < 0.12 * near) & (np.abs(v) < near)
        image[post] = shade + 60 * (u[post] - place)[:, None] / near + np.array([0.0, 20.0, 40.0])
    return np.clip(image, 0, 255).astype(np.uint8)
