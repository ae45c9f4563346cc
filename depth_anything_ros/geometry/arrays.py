# SPDX-License-Identifier: Apache-2.0
"""One code for both: tensors on an accelerator, and NumPy arrays on the CPU, where they and OpenCV are faster than torch.

Operators and slices are the same for both, and so are the functions of `library`; what differs is here.
"""

from __future__ import annotations

from types import ModuleType

import cv2
import numpy as np
import torch
import torch.nn.functional as F

Array = np.ndarray | torch.Tensor


def to_array(values: torch.Tensor) -> Array:
    """The same memory as a NumPy array if it is the CPU's; else the tensor itself."""
    return values.numpy() if values.device.type == "cpu" else values


def to_tensor(values: Array) -> torch.Tensor:
    """The way back."""
    return torch.from_numpy(values) if isinstance(values, np.ndarray) else values


def library(values: Array) -> ModuleType:
    """numpy or torch: whose functions take these values."""
    return np if isinstance(values, np.ndarray) else torch


def turned(values: Array) -> Array:
    """(w, h): values (h, w) transposed, in memory, too: columns become as fast as rows."""
    if not isinstance(values, np.ndarray):
        return values.T.contiguous()
    return cv2.transpose(values.view(np.uint8)).view(bool) if values.dtype == bool else cv2.transpose(values)


def pick(values: Array, rows: torch.Tensor, columns: torch.Tensor) -> Array:
    """(H, W): of values (h, w) the rows (H,) and, of them, the columns (W,)."""
    if isinstance(values, np.ndarray):
        rows, columns = rows.numpy(), columns.numpy()
    return turned(turned(values)[columns])[rows]


def blank(values: Array, mask: Array) -> Array:
    """A copy of float values (h, w) that is NaN where the mask says so."""
    if isinstance(values, np.ndarray):
        values = values.copy()
        values[mask] = np.nan
        return values
    return values.masked_fill(mask, torch.nan)


def choose(mask: Array, yes: Array, no: Array) -> Array:
    """`yes` where the mask says so, else `no`, (h, w) float32 both; what they held before is lost."""
    return cv2.copyTo(yes, mask.view(np.uint8), no) if isinstance(no, np.ndarray) else torch.where(mask, yes, no)


def votes(mask: Array) -> Array:
    """(h, w): how many of the 3 x 3 pixels around each, itself among them, are true."""
    if isinstance(mask, np.ndarray):
        return cv2.boxFilter(mask.view(np.uint8), -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT)
    return F.avg_pool2d(mask[None, None].float(), 3, 1, 1, divisor_override=1)[0, 0]


def lowest(values: Array, side: int) -> Array:
    """(h, w): the lowest of the `side` x `side` values around each; `side` is odd."""
    if isinstance(values, np.ndarray):
        return cv2.erode(values, np.ones((side, side), np.uint8))
    return -F.max_pool2d(-values[None, None], side, 1, side // 2)[0, 0]
