# SPDX-License-Identifier: Apache-2.0
"""Depth and colour -> an organised cloud of points, in the memory layout of PointCloud2."""

from __future__ import annotations

import numpy as np
import torch

POINT_STEP = 16  # bytes: x, y, z float32 in metres, then b, g, r, 0 as one float32 named rgb


def unproject(depth: torch.Tensor, rays: torch.Tensor) -> torch.Tensor:
    """Points in the optical frame.

    Args:
        depth: (H, W) float32 metres along z, NaN = invalid.
        rays: (2, H, W) from `Camera.rays`.

    Returns:
        (H, W, 3) float32 metres: x right, y down, z forward; all three NaN where the depth or the ray is invalid.
    """
    x, y = rays * depth
    z = torch.where(torch.isnan(x), torch.nan, depth)
    return torch.stack([x, y, z], -1)


def pack_cloud(points: torch.Tensor, rgb: np.ndarray) -> np.ndarray:
    """Points (H, W, 3) and their colours (H, W, 3) uint8 RGB -> (H, W, POINT_STEP) uint8, C-contiguous.

    Colour is 0x00RRGGBB reinterpreted as float32, as PCL and RViz expect it (sensor_msgs, point_cloud2_iterator.hpp).
    """
    height, width = rgb.shape[:2]
    packed = np.empty((height, width, 4), np.float32)
    packed[..., :3] = points.cpu().numpy()
    colour = packed.view(np.uint8)[..., 12:]
    colour[..., 0], colour[..., 1], colour[..., 2], colour[..., 3] = rgb[..., 2], rgb[..., 1], rgb[..., 0], 0
    return packed.view(np.uint8)
