# SPDX-License-Identifier: Apache-2.0
"""Depth and colour -> clouds of points, in the memory layout of PointCloud2."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch

POINT_STEP = 16  # bytes: x, y, z float32 in metres, then b, g, r, 0 as one float32 named rgb
_NO_ALPHA = np.array([255, 255, 255, 0], np.uint8).view(np.uint32)


@dataclass(frozen=True)
class CloudSettings:
    """Which points a cloud has.

    Attributes:
        stride: every how many pixels, along both sides.
        max_range: metres from the camera, beyond which there is no point; 0: no limit.
        min_height, max_height: metres above the base frame's z = 0, between which points are kept; both 0: no limit.
        voxel: metres; one point, the mean, for each cube of this side, unordered; 0: one for each pixel, organised.
        ground_tolerance: metres; what is that near to the plane of the ground is ground, what is above is an obstacle.
    """

    stride: int = 1
    max_range: float = 0.0
    min_height: float = 0.0
    max_height: float = 0.0
    voxel: float = 0.0
    ground_tolerance: float = 0.1

    @property
    def has_band(self) -> bool:
        """Whether heights are asked for, which needs a transform."""
        return bool(self.min_height or self.max_height)


def unproject(depth: torch.Tensor, rays: torch.Tensor) -> torch.Tensor:
    """Points in the optical frame.

    Args:
        depth: (H, W) float32 metres along z, NaN = invalid.
        rays: (2, H, W) from `Camera.rays`.

    Returns:
        (H, W, 3) float32 metres: x right, y down, z forward; all three NaN where the depth or the ray is invalid.
    """
    points = depth.new_empty((3, *depth.shape))  # in planes, which is how all of them are worked on
    torch.mul(rays, depth, out=points[:2])
    torch.add(depth, points[0], alpha=0, out=points[2])  # NaN where x is
    return points.permute(1, 2, 0)


def pack_cloud(points: torch.Tensor, rgb: np.ndarray) -> np.ndarray:
    """Points (H, W, 3) and their colours (H, W, 3) uint8 RGB -> (H, W, POINT_STEP) uint8, C-contiguous.

    Colour is 0x00RRGGBB reinterpreted as float32, as PCL and RViz expect it (sensor_msgs, point_cloud2_iterator.hpp).
    """
    if not points.numel():
        return np.empty((*rgb.shape[:2], POINT_STEP), np.uint8)
    colour = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGRA).view(np.uint32)[..., 0]
    colour &= _NO_ALPHA
    return cv2.merge([*points.permute(2, 0, 1).cpu().numpy(), colour.view(np.float32)]).view(np.uint8)


def voxel_grid(points: torch.Tensor, rgb: np.ndarray, side: float) -> tuple[torch.Tensor, np.ndarray]:
    """The mean of the valid points (H, W, 3) in each cube of `side` metres, and of their colours (H, W, 3).

    Returns:
        (1, N, 3) float32 on the same device, and (1, N, 3) uint8.
    """
    points = points.reshape(-1, 3)
    valid = torch.isfinite(points).all(-1)
    points = points[valid]
    colours = torch.tensor(rgb.reshape(-1, 3), device=points.device)[valid].float()
    if not len(points):
        return points[None], np.empty((1, 0, 3), np.uint8)
    cell = (points / side).floor().long()
    cell -= cell.min(0).values
    extent = cell.max(0).values + 1
    key = (cell[:, 0] * extent[1] + cell[:, 1]) * extent[2] + cell[:, 2]
    _, owner, count = torch.unique(key, return_inverse=True, return_counts=True)
    total = torch.zeros((len(count), 6), device=points.device)
    total.index_add_(0, owner, torch.cat([points, colours], 1))
    mean = total / count[:, None]
    return mean[None, :, :3].contiguous(), mean[None, :, 3:].round().byte().cpu().numpy()
