# SPDX-License-Identifier: Apache-2.0
"""The ground below a camera: how far away it is at each pixel, and the plane that points near it make."""

from __future__ import annotations

import numpy as np
import torch

from .transforms import Transform

_TILT = 0.05  # radians by which a camera's pitch and roll may be wrong


def ground_inverse_depth(rays: torch.Tensor, up: np.ndarray, height: float) -> torch.Tensor:
    """1 / z of level ground at each pixel; 0 and less at the horizon and above.

    A point z * (x, y, 1) of a ray lies `height` below the camera where up . point = -height, so 1 / z = -(up . ray) / height.

    Args:
        rays: (2, h, w), see `Camera.rays`.
        up: (3,) unit vector against gravity, in the optical frame.
        height: of the camera above the ground, metres.
    """
    x, y, z = (float(component) for component in up)
    return -(rays[0] * x + rays[1] * y + z) / height


def heights(points: torch.Tensor, mount: Transform) -> torch.Tensor:
    """(…,) metres above z = 0 of the robot's frame; points (…, 3) in the optical frame, mount (robot <- optical)."""
    up = torch.from_numpy(mount.rotation[2]).to(points)
    return points @ up + float(mount.translation[2])


def ground_plane(points: torch.Tensor, tolerance: float) -> tuple[float, float, float]:
    """The plane z = p * x + q * y + r of the points (N, 3) of a level frame that lie near z = 0.

    It may be tilted against z = 0 by what a camera's pitch is usually wrong by, and lifted by half the tolerance; more is a
    step or a platform. A weighted fit, again and again, each time to the points within a narrower band; z = 0 is believed
    unless the result has clearly more points near it.

    Args:
        tolerance: metres from the plane within which a point is on it.
    """
    points = points[torch.isfinite(points).all(-1)].double()
    flat = torch.zeros(3, dtype=torch.float64, device=points.device)
    base = torch.cat([points[:, :2], torch.ones_like(points[:, :1])], 1)
    away = points[:, :2].norm(dim=1)
    weight = 1 / (1 + away) ** 2  # errors grow with distance

    def support(plane: torch.Tensor) -> float:
        return float((weight * ((points[:, 2] - base @ plane).abs() <= tolerance / 2)).sum())

    plane = flat
    for band in (1.0, 0.6, 0.4, 0.4):
        near = (points[:, 2] - base @ plane).abs() <= band * (tolerance + _TILT * away)
        if int(near.sum()) < 50:
            return 0.0, 0.0, 0.0
        rows, weights = base[near], weight[near][:, None]
        held = 1e-3 * weights.sum() * torch.diag(points.new_tensor([1.0, 1.0, 0.0]))
        plane = torch.linalg.solve(rows.T @ (weights * rows) + held, rows.T @ (weights[:, 0] * points[near, 2]))
    if float(plane[:2].norm()) > _TILT or abs(float(plane[2])) > tolerance / 2 or support(plane) < 1.1 * support(flat):
        return 0.0, 0.0, 0.0
    return tuple(float(value) for value in plane)
