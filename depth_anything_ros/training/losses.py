# SPDX-License-Identifier: Apache-2.0
"""What training minimises: pure functions of batches (B, H, W). What a mask (B, H, W) bool leaves out may be anything, NaN too.

Relative networks: the affine-invariant loss of Ranftl, Lasinger, Hafner, Schindler, Koltun: Towards Robust Monocular Depth
Estimation (TPAMI 2022, arXiv:1907.01341), equations 5 to 7 and 11, on inverse depth. Metric networks: the scale-invariant
logarithmic error of Eigen, Puhrsch, Fergus (NeurIPS 2014, arXiv:1406.2283), equation 4, in the form that Depth Anything V2's
metric fine-tuning uses (`metric_depth/util/loss.py`).
"""

from __future__ import annotations

import torch

_SCALES = 4  # of the gradients, each at half the resolution of the one before: K in the paper
_FLAT = 1e-6  # a spread below which there is nothing to normalise


def scale_and_shift_invariant(
    prediction: torch.Tensor, target: torch.Tensor, mask: torch.Tensor, gradient: float = 0.5
) -> torch.Tensor:
    """Mean absolute difference of the two after each is normalised, and of their gradients at four scales.

    No `a * prediction + b` with a > 0 has another loss than `prediction`.

    Args:
        prediction, target: inverse depth of any scale and shift.
        gradient: weight of the gradients' part; alpha = 0.5 in the paper.

    Returns:
        The mean over the images that have any valid pixel; 0 if none has.
    """
    prediction, target, mask = _with_pixels(prediction, target, mask)
    if not len(mask):
        return prediction.sum()
    residual = _normalised(prediction, mask) - _normalised(target, mask)
    return _masked_mean(residual.abs(), mask).mean() + gradient * _gradients(residual, mask).mean()


def silog(prediction: torch.Tensor, target: torch.Tensor, mask: torch.Tensor, focus: float = 0.5) -> torch.Tensor:
    """Root of the mean squared difference of ln depth, less `focus` of the squared mean difference.

    At `focus` 1 the scale of the prediction would not matter, at 0 it matters like everything else.

    Args:
        prediction, target: metres, above 0 where they are valid.
        focus: lambda; 0.5 in both sources.

    Returns:
        The mean over the images that have any valid pixel (the reference takes all pixels of a batch together); 0 if none has.
    """
    prediction, target, mask = _with_pixels(prediction, target, mask)
    if not len(mask):
        return prediction.sum()
    off = prediction.clamp_min(1e-3).log() - torch.where(mask, target, 1.0).log()
    variance = _masked_mean(off.square(), mask) - focus * _masked_mean(off, mask).square()
    return variance.clamp_min(1e-8).sqrt().mean()  # at 0 the root has no slope


def _with_pixels(prediction: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The images with any valid pixel; what is masked becomes a number whose gradient is 0."""
    has = mask.flatten(1).any(1)
    prediction, target, mask = prediction[has].float(), target[has].float(), mask[has]
    return torch.where(mask, prediction, 1.0), torch.where(mask, target, 1.0), mask


def _normalised(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Less the median, over the mean absolute distance from it; both of the valid pixels of each image."""
    middle = values.masked_fill(~mask, torch.nan).flatten(1).nanmedian(1).values[:, None, None]
    centred = values - middle
    return centred / _masked_mean(centred.abs(), mask).clamp_min(_FLAT)[:, None, None]


def _masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(B,) means over the valid pixels; 0 of none."""
    return torch.where(mask, values, 0.0).sum((1, 2)) / mask.sum((1, 2)).clamp_min(1)


def _gradients(residual: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(B,) sums over scales of the mean |d/dx| + |d/dy|, where both neighbours are valid."""
    total = residual.new_zeros(len(residual))
    for scale in range(_SCALES):
        coarse, valid = residual[:, :: 2**scale, :: 2**scale], mask[:, :: 2**scale, :: 2**scale]
        sums = residual.new_zeros(len(residual))
        for axis in (1, 2):
            size = valid.shape[axis] - 1
            both = valid.narrow(axis, 1, size) & valid.narrow(axis, 0, size)
            sums = sums + torch.where(both, coarse.diff(dim=axis).abs(), 0.0).sum((1, 2))
        total = total + sums / valid.sum((1, 2)).clamp_min(1)
    return total
