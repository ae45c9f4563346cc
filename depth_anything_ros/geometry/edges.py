# SPDX-License-Identifier: Apache-2.0
"""No points in the air: depth that lies between two surfaces is found at the network's grid, and not enlarged across edges."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from .arrays import Array, blank, choose, library, lowest, pick, to_array, to_tensor, turned, votes
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
    return to_tensor(_alone(to_array(1 / depth), tolerance))


def _alone(inverse: Array, tolerance: float) -> Array:
    alone = _unforetold(inverse, tolerance) | turned(_unforetold(turned(inverse), tolerance))
    return alone & (votes(alone) > 3)  # an edge is a line: single pixels are the network's noise


def _unforetold(inverse: Array, tolerance: float) -> Array:
    """(h, w) bool: what neither the rows above nor those below foretell, and is nothing thin; transposed for columns."""
    of, rows, slope = library(inverse), len(inverse), _REACH / _SPAN
    padded = _continued(inverse, _REACH + _SPAN)
    near, far, change = (1 + slope) * padded, slope * padded, abs(padded[1:] - padded[:-1])

    def beside(values: Array, steps: int) -> Array:
        return values[_REACH + _SPAN + steps :][:rows]

    def off(side: int) -> Array:
        foretold = beside(near, side * _REACH) - beside(far, side * (_REACH + _SPAN))
        foretold -= inverse
        return of.abs(foretold, out=foretold)

    allowed = tolerance * inverse
    met = (off(-1) <= allowed) | (off(1) <= allowed)
    alike = of.minimum(beside(change, -1), beside(change, 0)) <= allowed
    thin = (inverse > of.maximum(beside(padded, -_REACH), beside(padded, _REACH))) & alike
    return ~(met | thin)


def _continued(values: Array, count: int) -> Array:
    """`count` more rows at both ends, turned about the last one, which continues what is affine."""
    of = library(values)
    before = 2 * values[:1] - of.flip(values[1 : count + 1], (0,))
    after = 2 * values[-1:] - of.flip(values[-count - 1 : -1], (0,))
    return of.concatenate([before, values, after])


def _torn(inverse: Array, alone: Array, tolerance: float) -> Array:
    """(h - 1, w - 1) bool: the cells of four grid pixels that an edge goes through."""
    of = library(inverse)
    high = _of_cells(of.maximum, inverse)
    step = high - _of_cells(of.minimum, inverse)  # alike in all cells of a plane, however steep
    usual = of.maximum(tolerance * high, lowest(step, 5))
    return (step > 2 * usual) | _of_cells(of.logical_or, alone)


def _of_cells(most: Callable, values: Array) -> Array:
    """(h - 1, w - 1): the most of each four values."""
    values = most(values[1:], values[:-1])
    return most(values[:, 1:], values[:, :-1])


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
    grid = to_array(depth)
    if tolerance:
        inverse = to_array(depth.reciprocal())
        alone = _alone(inverse, tolerance)
        grid = blank(grid, alone)
    if upsampling == "nearest":
        return to_tensor(pick(grid, y, x))
    if size == tuple(depth.shape):
        smooth = depth.clone()
    else:
        smooth = F.interpolate(depth[None, None], size=size, mode="bilinear", align_corners=align_corners)[0, 0]
    if not tolerance:
        return smooth
    torn = pick(_torn(inverse, alone, tolerance), y_cell, x_cell)
    if upsampling != "guided":
        return to_tensor(choose(torn, pick(grid, y, x), to_array(smooth)))
    rows, columns = to_tensor(torn).nonzero(as_tuple=True)
    smooth[rows, columns] = _most_alike(to_tensor(grid), rgb, rows, columns, y, x)
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
