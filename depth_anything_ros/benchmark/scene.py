# SPDX-License-Identifier: Apache-2.0
"""A room to look at: its picture, and its exact depth as if a network had said it."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import torch

from ..demo.families import HELD_OUT_SEED
from ..demo.sources import Shot, photographed_scene
from ..inference import Prediction

_FAR = 20.0  # metres: what an indoor network can say


@lru_cache(maxsize=1)
def _shot() -> Shot:
    return photographed_scene(HELD_OUT_SEED + 3, "room", 640, 480)


def picture(width: int, height: int) -> np.ndarray:
    """(height, width, 3) uint8 RGB."""
    return cv2.resize(_shot().rgb, (width, height), interpolation=cv2.INTER_LINEAR)


def exact_prediction(width: int, height: int, size: tuple[int, int], device: torch.device) -> Prediction:
    """Exact metres at a network's grid (width, height), with the blur at edges that networks have."""
    depth = np.minimum(np.nan_to_num(_shot().depth, posinf=_FAR), _FAR).astype(np.float32)
    inverse = cv2.GaussianBlur(cv2.resize(1 / depth, size, interpolation=cv2.INTER_LINEAR), (0, 0), 1.5)
    return Prediction(torch.from_numpy(1 / inverse).to(device), "metric", (height, width), True, "exact", _FAR)
