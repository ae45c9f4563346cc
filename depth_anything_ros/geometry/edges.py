# SPDX-License-Identifier: Apache-2.0
"""No points in the air: depth that lies between two surfaces is found at the network's grid, and not enlarged across edges."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from .grid import grid_places

UPSAMPLINGS = ("bilinear", "nearest", "guided")
_REACH, _SPAN = 3, 2  # grid pixels: how far away a surface is looked for, and over what its slope is taken
_AROUND = 2  # grid pixels: from how far away a pixel at an edge may take its depth by colour
_PER_STEP = 100.0  # squared grey levels that a grid pixel of distance, squared, weighs as much as


def between_surfaces(depth: torch.Tensor, tolerance: float) -> torch.Tensor:
    """(h, w) bool: where depth (h, w), metres at the network's grid, belongs to no surface beside it.

    A plane's inverse depth is an affine function of the pixel. So each side of a pixel (left and right, above and below)
    foretells its inverse depth from two pixels beyond the reach of the blur, with their slope; a pixel of a surface agrees with
    one side at least along both axes, whatever the surface's slant, a pixel in the blur between two surfaces with none (the
    one-sided stencils of essentially non-oscillatory schemes: Harten et al. 1987). What is nearer than both sides, and
    like a pixel next to it, is something thin, and stays: a robot would rather see a chair's leg.

    Args:
        tolerance: how far off the foretold inverse depth may be, as a share of the pixel's own.
    """
    inverse = 1 / depth
    alone = torch.zeros_like(depth, dtype=torch.bool)
    for axis in (0, 1):
        padded = _continued(inverse, axis, _REACH + _SPAN)

        def beside(steps: int, padded=padded, axis=axis) -> torch.Tensor:
            return padded.narrow(axis, _REACH + _SPAN + steps, depth.shape[axis])

        slope = _REACH / _SPAN
        sides = [(1 + slope) * beside(side * _REACH) - slope * beside(side * (_REACH + _SPAN)) for side in (-1, 1)]
        allowed = tolerance * inverse
        met = ((sides[0] - inverse).abs() <= allowed) | ((sides[1] - inverse).abs() <= allowed)
        alike = torch.minimum((beside(-1) - inverse).abs(), (beside(1) - inverse).abs()) <= allowed
        thin = (inverse > torch.maximum(beside(-_REACH), beside(_REACH))) & alike
        alone |= ~(met | thin)
    votes = F.avg_pool2d(alone[None, None].to(depth.dtype), 3, 1, 1)[0, 0]  # of nine, itself among them
    return alone & (votes > 3.5 / 9)  # an edge is a line: single pixels are the network's noise


def _continued(values: torch.Tensor, axis: int, count: int) -> torch.Tensor:
    """`count` more values at both ends of an axis, turned about the last one, which continues what is affine."""
    size = values.shape[axis]
    before = 2 * values.narrow(axis, 0, 1) - values.narrow(axis, 1, count).flip(axis)
    after = 2 * values.narrow(axis, size - 1, 1) - values.narrow(axis, size - 1 - count, count).flip(axis)
    return torch.cat([before, values, after], axis)


def enlarge(
    depth: torch.Tensor,
    size: tuple[int, int],
    align_corners: bool,
    tolerance: float,
    upsampling: str = "bilinear",
    rgb: np.ndarray | None = None,
) -> torch.Tensor:
    """Depth (h, w) in metres at the network's grid -> (H, W) at the image's size, NaN between surfaces.

    Args:
        tolerance: see `between_surfaces`; 0: nothing is taken for an edge, and mixtures of two surfaces stay.
        upsampling: one of `UPSAMPLINGS`. bilinear: on surfaces; across their edges each pixel takes the grid's nearest, so that
            none is a mixture of two. nearest: everywhere. guided: as bilinear, but pixels at edges take the depth of that grid
            pixel around them that is most like them in colour and belongs to a surface (joint bilateral upsampling, Kopf et al.
            2007, with a choice instead of a mean).
        rgb: (H, W, 3) uint8 of the image; for guided only.
    """
    (y, y_cell), (x, x_cell) = (_cells(n, m, align_corners, str(depth.device)) for n, m in zip(size, depth.shape))
    if upsampling == "nearest":
        if tolerance:
            depth = torch.where(between_surfaces(depth, tolerance), torch.nan, depth)
        return depth[y[:, None], x]
    if size == tuple(depth.shape):
        smooth = depth
    else:
        smooth = F.interpolate(depth[None, None], size=size, mode="bilinear", align_corners=align_corners)[0, 0]
    if not tolerance:
        return smooth
    alone = between_surfaces(depth, tolerance)
    inverse = (1 / depth)[None, None]
    high = F.max_pool2d(inverse, 2, 1)
    # Of inverse depth over a cell of four grid pixels; alike in all cells of a plane, however steep.
    step = high + F.max_pool2d(-inverse, 2, 1)
    torn = ((step > 2 * tolerance * high) & (step > 2 * -F.max_pool2d(-step, 5, 1, 2)))[0, 0]
    torn |= F.max_pool2d(alone[None, None].to(depth.dtype), 2, 1)[0, 0] > 0
    depth = torch.where(alone, torch.nan, depth)
    torn = torn[y_cell[:, None], x_cell]
    if upsampling != "guided":
        return torch.where(torn, depth[y[:, None], x], smooth)
    rows, columns = torn.nonzero(as_tuple=True)
    smooth = smooth.clone()
    smooth[rows, columns] = _most_alike(depth, rgb, rows, columns, y, x)
    return smooth


def _most_alike(depth, rgb: np.ndarray, rows, columns, y, x) -> torch.Tensor:
    """Depth (N,) of the grid pixel most alike in colour to each of N pixels, from the 5 x 5 around it; NaN if none is valid."""
    coarse = cv2.resize(rgb, depth.shape[::-1], interpolation=cv2.INTER_AREA)
    coarse, rgb = (torch.tensor(image, device=depth.device) for image in (coarse, rgb))
    colour, best = rgb[rows, columns].float(), torch.full(rows.shape, torch.inf, device=depth.device)
    found = torch.full(rows.shape, torch.nan, device=depth.device, dtype=depth.dtype)
    for dy in range(-_AROUND, _AROUND + 1):
        for dx in range(-_AROUND, _AROUND + 1):
            there = (y[rows] + dy).clamp(0, depth.shape[0] - 1), (x[columns] + dx).clamp(0, depth.shape[1] - 1)
            cost = (coarse[there].float() - colour).square().sum(-1) + _PER_STEP * (dy * dy + dx * dx)
            better = (cost < best) & ~torch.isnan(depth[there])
            best, found = torch.where(better, cost, best), torch.where(better, depth[there], found)
    return found


@lru_cache(maxsize=32)
def _cells(count: int, grid: int, align_corners: bool, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """For each of `count` pixels along a side: the nearest of `grid` pixels, and the first of the two that it lies between."""
    places = grid_places(torch.arange(count, dtype=torch.float64), count, grid, align_corners)
    return places.round().long().to(device), places.floor().long().clamp_max(grid - 2).to(device)
