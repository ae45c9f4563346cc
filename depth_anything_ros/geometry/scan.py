# SPDX-License-Identifier: Apache-2.0
"""Depth -> what a planar laser scanner would say: the nearest obstacle in each direction, tilt and roll taken out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from .transforms import Transform

_MOST = 0.5  # of the rays that would see an obstacle at the end of the range: so many have to see farther for it to be free

_NEAR = (0.3, 0.6, 1.0, 2.0)  # metres from the camera at which its field of view is looked at from the scan's frame


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

    +Inf: seen to be free as far as the range goes; -Inf: something nearer than the range begins; NaN: not known (REP-117).
    """

    ranges: torch.Tensor
    angle_min: float
    increment: float


def scan_of(
    depth: torch.Tensor, rays: torch.Tensor, level: Transform, mount: Transform, settings: ScanSettings, reach: float = math.inf
) -> Scan:
    """The scan of one frame.

    A direction is free only if most of the rays that cross the band of heights at the end of the range were seen to go beyond
    it: a floor that is seen below a gap in depth says nothing of what stands in the gap.

    Args:
        depth: (H, W) metres along z; NaN invalid, +Inf out of range.
        rays: (2, H, W) of the same camera.
        level: (base frame <- optical frame), for heights.
        mount: (scan frame <- optical frame).
        reach: metres, what +Inf in depth is beyond.
    """
    (x, y), (start_x, start_y) = (_along(rays, mount, row) for row in (0, 1)), (float(v) for v in mount.translation[:2])
    rise, start_height = _along(rays, level, 2), float(level.translation[2])
    # Rays at the end of the range: |start + t * direction| = max_range, solved for t, which is depth along the ray.
    squared, along = x * x + y * y, start_x * x + start_y * y
    inside = along.square() - squared * (start_x**2 + start_y**2 - settings.max_range**2)
    end = (inside.clamp_min(0).sqrt() - along) / squared
    end = torch.where((inside > 0) & (end > 0), end, torch.nan)

    def angle(t: torch.Tensor) -> torch.Tensor:
        """Of points at depth t along their rays, about the camera's forward direction, in half a turn to both sides."""
        off = torch.atan2(start_y + t * y, start_x + t * x) - forward
        return torch.remainder(off + math.pi, 2 * math.pi) - math.pi

    forward, increment = math.atan2(mount.rotation[1, 2], mount.rotation[0, 2]), math.radians(settings.increment_deg)
    # The same beams in every frame: all that a ray points at, at the end of its range or near the camera.
    seen = torch.cat([angle(t).flatten() for t in (end, *(near / squared.sqrt() for near in _NEAR))])
    seen = seen[torch.isfinite(seen)]
    if not len(seen):
        return Scan(torch.full((1,), torch.nan, device=depth.device), 0.0, increment)
    first, last = (math.floor((forward + float(side)) / increment + 0.5) for side in (seen.min(), seen.max()))
    count = min(last - first + 1, math.floor(2 * math.pi / increment))

    def beams(t: torch.Tensor) -> torch.Tensor:
        """Index of the beam that a point is in; `count` for none."""
        index = ((forward + angle(t)) / increment).round() - first
        return torch.where((index >= 0) & (index < count), index, count).nan_to_num(count).long()

    height = start_height + end * rise
    watching = (height >= settings.min_height) & (height <= settings.max_height)
    beyond = watching & (depth >= end) & (torch.isfinite(depth) | (end <= reach))
    watched, free = (
        torch.zeros(count + 1, device=depth.device).index_add_(0, beams(end).flatten(), mask.flatten().float())
        for mask in (watching, beyond)
    )
    height, distance = start_height + depth * rise, torch.hypot(start_x + depth * x, start_y + depth * y)
    obstacle = (height >= settings.min_height) & (height <= settings.max_height) & (distance <= settings.max_range)
    nearest = torch.full((count + 1,), torch.inf, device=depth.device)
    nearest.scatter_reduce_(0, beams(depth)[obstacle], distance[obstacle].float(), "amin")
    ranges = torch.where((watched > 0) & (free >= _MOST * watched), torch.inf, torch.nan)
    ranges = torch.where(torch.isfinite(nearest), nearest, ranges)
    ranges = torch.where(nearest < settings.min_range, -torch.inf, ranges)
    return Scan(ranges[:count], first * increment, increment)


def _along(rays: torch.Tensor, frame: Transform, row: int) -> torch.Tensor:
    """(H, W): how far one unit of depth along each ray goes along an axis of the frame."""
    a, b, c = (float(value) for value in frame.rotation[row])
    return a * rays[0] + b * rays[1] + c
