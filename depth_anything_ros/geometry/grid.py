# SPDX-License-Identifier: Apache-2.0
"""Where a pixel of the image lies on the network's grid, and the rays through that grid."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

from .camera import Camera


def grid_places(pixels, count: int, grid: int, align_corners: bool):
    """Coordinates along one side of an image of `count` pixels, on a grid of `grid` over the same view, by torch's rules.

    Takes and gives arrays or tensors; kept within the grid.
    """
    places = pixels * ((grid - 1) / max(1, count - 1)) if align_corners else (pixels + 0.5) * (grid / count) - 0.5
    return places.clip(0, grid - 1)


def sample_grid(values: torch.Tensor, pixels: np.ndarray, size: tuple[int, int], align_corners: bool) -> np.ndarray:
    """The grid's values (N,), interpolated bilinearly, at pixels (N, 2) u, v of the image; NaN for pixels outside of it.

    Args:
        values: (h, w) on any device.
        size: (height, width) of the image.
    """
    height, width = size
    inside = np.isfinite(pixels).all(1) & (pixels > -0.5).all(1) & (pixels < (width - 0.5, height - 0.5)).all(1)
    x = grid_places(pixels[inside, 0], width, values.shape[1], align_corners)
    y = grid_places(pixels[inside, 1], height, values.shape[0], align_corners)
    places = torch.from_numpy(np.stack([x, y], 1).astype(np.float32)).to(values.device)
    extent = places.new_tensor([values.shape[1] - 1, values.shape[0] - 1])
    corners = (2 * places / extent - 1)[None, None]
    found = np.full(len(pixels), np.nan)
    found[inside] = F.grid_sample(values[None, None], corners, align_corners=True)[0, 0, 0].cpu().numpy()
    return found


@lru_cache(maxsize=16)
def grid_rays(camera: Camera, grid: tuple[int, int], align_corners: bool, device: str) -> torch.Tensor:
    """(2, h, w) float32: `Camera.rays` at the network's grid."""
    rays = camera.rays(device)
    return F.interpolate(rays[None], size=grid, mode="bilinear", align_corners=align_corners)[0]
