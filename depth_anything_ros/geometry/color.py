# SPDX-License-Identifier: Apache-2.0
"""Depth as a picture that a person can read, with colours that mean the same in every frame."""

from __future__ import annotations

import cv2
import numpy as np
import torch

COLORMAPS = {
    "turbo": cv2.COLORMAP_TURBO,
    "inferno": cv2.COLORMAP_INFERNO,
    "magma": cv2.COLORMAP_MAGMA,
    "viridis": cv2.COLORMAP_VIRIDIS,
    "plasma": cv2.COLORMAP_PLASMA,
    "bone": cv2.COLORMAP_BONE,
}


def colorize(values: torch.Tensor, low: float, high: float, colormap: str) -> np.ndarray:
    """(H, W) float32 -> (H, W, 3) uint8 BGR: `low` gets the map's last colour, `high` its first, invalid values black.

    Near is therefore bright for depth; pass inverse depth with low > high to get the same. OpenCV's work, on the CPU.
    """
    clamped = values.clamp(min(low, high), max(low, high)).cpu().numpy()  # infinities have no place in uint8
    scale = 255 / (high - low)
    places = cv2.convertScaleAbs(clamped, alpha=-scale, beta=high * scale)
    valid = cv2.compare(clamped, clamped, cv2.CMP_EQ)
    return cv2.copyTo(cv2.applyColorMap(places, COLORMAPS[colormap]), valid)


class AdaptiveRange:
    """A range for values of no known unit that follows their 2nd and 98th percentile slowly, so that pictures do not flicker.

    Each new frame moves the range by `rate` of the way; `reset` starts anew.
    """

    def __init__(self, rate: float = 0.05):
        self.rate = rate
        self._range: np.ndarray | None = None

    def reset(self) -> None:
        """Forget what was seen."""
        self._range = None

    def update(self, values: torch.Tensor) -> tuple[float, float]:
        """Take in one frame (H, W) and give (low, high), always with low < high."""
        sample = values[::4, ::4]
        sample = sample[torch.isfinite(sample)]
        if sample.numel():
            seen = np.percentile(sample.cpu().numpy(), (2, 98))
            self._range = seen if self._range is None else self._range + self.rate * (seen - self._range)
        low, high = (0.0, 1.0) if self._range is None else self._range
        return float(low), float(max(high, low + 1e-6))
