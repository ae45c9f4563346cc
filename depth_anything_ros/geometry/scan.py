# SPDX-License-Identifier: Apache-2.0
"""Points in a level frame -> what a planar laser scanner there would say: the nearest obstacle in each direction."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from .transforms import Transform


@dataclass(frozen=True)
class ScanSettings:
    """How depth becomes a scan.

    Attributes:
        frame: of the scan, x forward and z up; never an optical one. Empty: the robot's base frame.
        min_height, max_height: metres above the base frame's z = 0; what lies between is an obstacle.
        min_range, max_range: metres in the scan's plane; what lies outside is not reported.
        increment_deg: degrees between beams.
    """

    frame: str = ""
    min_height: float = 0.1
    max_height: float = 1.0
    min_range: float = 0.1
    max_range: float = 10.0
    increment_deg: float = 0.5


@dataclass(frozen=True)
class Scan:
    """`ranges` (N,) float32 metres, the first about `angle_min` radians (counterclockwise from x), half a beam to either side.

    +Inf: seen, and nothing in the way; NaN: nothing is known of that direction (REP-117).
    """

    ranges: torch.Tensor
    angle_min: float
    increment: float


def scan_of(points: torch.Tensor, height: torch.Tensor, rays: torch.Tensor, mount: Transform, settings: ScanSettings) -> Scan:
    """The scan of one frame.

    Args:
        points: (H, W, 3) metres in the optical frame, NaN invalid; +Inf in z where nothing is within range.
        height: (H, W) metres above the base frame's z = 0.
        rays: (2, H, W) of the same camera.
        mount: (scan frame <- optical frame).
    """
    increment = math.radians(settings.increment_deg)
    low, high = _view(rays, mount)
    first = math.ceil(low / increment)
    count = max(1, math.floor(high / increment) - first + 1)
    turn = torch.from_numpy(mount.rotation).to(points)
    moved = points @ turn.T + torch.from_numpy(mount.translation).to(points)
    x, y = moved[..., 0], moved[..., 1]
    distance = torch.hypot(x, y)
    beam = ((_angle(x, y, low) / increment).round() - first).nan_to_num(-1).long()
    inside = (beam >= 0) & (beam < count)
    ranges = torch.full((count,), torch.nan, dtype=torch.float32, device=points.device)
    ranges[beam[inside & torch.isfinite(distance)]] = torch.inf  # seen
    far = torch.isinf(points[..., 2])
    if far.any():
        dx, dy = (turn[i, 0] * rays[0] + turn[i, 1] * rays[1] + turn[i, 2] for i in (0, 1))
        there = ((_angle(dx, dy, low) / increment).round() - first).nan_to_num(-1).long()
        ranges[there[far & (there >= 0) & (there < count)]] = torch.inf
    hit = inside & (height >= settings.min_height) & (height <= settings.max_height)
    hit &= (distance >= settings.min_range) & (distance <= settings.max_range)
    nearest = torch.full((count,), torch.inf, dtype=torch.float32, device=points.device)
    nearest.scatter_reduce_(0, beam[hit], distance[hit].float(), "amin")
    return Scan(torch.where(torch.isfinite(nearest), nearest, ranges), first * increment, increment)


def _view(rays: torch.Tensor, mount: Transform) -> tuple[float, float]:
    """The directions in radians between which the camera sees, along its middle row, about its optical axis."""
    turn = torch.from_numpy(mount.rotation).to(rays)
    middle = rays[:, rays.shape[1] // 2]
    middle = middle[:, torch.isfinite(middle).all(0)]
    x, y = (turn[i, 0] * middle[0] + turn[i, 1] * middle[1] + turn[i, 2] for i in (0, 1))
    axis = math.atan2(float(turn[1, 2]), float(turn[0, 2]))
    off = torch.remainder(torch.atan2(y, x) - axis + math.pi, 2 * math.pi) - math.pi
    return axis + float(off.min()), axis + float(off.max())


def _angle(x: torch.Tensor, y: torch.Tensor, low: float) -> torch.Tensor:
    """atan2 in the turn that begins half a turn before the view's middle, so that no view is cut in two at +-pi."""
    start = low - math.pi / 2
    return start + torch.remainder(torch.atan2(y, x) - start, 2 * math.pi)
