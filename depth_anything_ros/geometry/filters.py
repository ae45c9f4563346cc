# SPDX-License-Identifier: Apache-2.0
"""Classical filters of inverse depth at the network's grid: OpenCV's, on the CPU."""

from __future__ import annotations

import cv2
import numpy as np
import torch

MEDIANS = (0, 3, 5)
_SIMILAR = 0.05  # of the inverse depth's median: what the bilateral filter takes for the same surface


def smooth(inverse: torch.Tensor, median: int, bilateral: float) -> torch.Tensor:
    """Inverse depth (h, w) without specks and with smoother surfaces, on the same device.

    Args:
        median: side of the window in grid pixels, one of `MEDIANS`; 0: none.
        bilateral: standard deviation in grid pixels of a filter that keeps edges (Tomasi and Manduchi 1998); 0: none.
    """
    if not median and not bilateral:
        return inverse
    values = np.ascontiguousarray(inverse.cpu().numpy(), np.float32)
    if median:
        values = cv2.medianBlur(values, median)
    if bilateral:
        values = cv2.bilateralFilter(values, -1, _SIMILAR * max(float(np.median(values)), 1e-6), bilateral)
    return torch.from_numpy(values).to(inverse.device)
