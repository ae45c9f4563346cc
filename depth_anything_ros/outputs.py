# SPDX-License-Identifier: Apache-2.0
"""Everything that can be published of one frame, each computed when first asked for. No ROS."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, reduce

import numpy as np
import torch

from .geometry import (
    AdaptiveRange,
    CloudSettings,
    Scan,
    ScanSettings,
    colorize,
    ground_plane,
    heights,
    pack_cloud,
    scan_of,
    unproject,
    voxel_grid,
)
from .inference import Prediction
from .pipeline import Frame, Refined, Side

_PLANE_STRIDE = 4  # pixels between the points that the ground's plane is found from


@dataclass(frozen=True)
class ColorSettings:
    """How depth becomes a picture: a colour map, and the metres that its ends stand for."""

    colormap: str = "turbo"
    near: float = 0.0
    far: float = 10.0


@dataclass(frozen=True)
class OutputSettings:
    """What outputs look like.

    Attributes:
        infinite: whether depth images say +Inf (REP-117) of what is out of range, instead of NaN.
        near, far: metres, the range of depth: what a compressed depth image has to hold.
    """

    color: ColorSettings = field(default_factory=ColorSettings)
    cloud: CloudSettings = field(default_factory=CloudSettings)
    scan: ScanSettings = field(default_factory=ScanSettings)
    infinite: bool = False
    near: float = 0.05
    far: float = 20.0


class Outputs:
    """The outputs of one frame. Every array is on the CPU, C-contiguous and, but for some clouds, of the image's size."""

    def __init__(
        self,
        frame: Frame,
        prediction: Prediction,
        refined: Refined,
        side: Side,
        settings: OutputSettings,
        relative_range: AdaptiveRange,
    ):
        self._frame, self._prediction, self._side = frame, prediction, side
        self.refined, self.settings, self._relative_range = refined, settings, relative_range

    @property
    def has(self) -> set[str]:
        """What there is to make outputs of: see the needs in `stream.topics`."""
        refined, side = self.refined, self._side
        found = {
            "metres": refined.metres is not None,
            "relative": self._prediction.kind == "relative",
            "camera": self._frame.camera is not None,
            "mount": side.mount is not None,
            "scan mount": side.scan is not None,
            "confidence": self._prediction.confidence is not None,
            "scale": refined.scale is not None,
            "features": self._prediction.features is not None,
            "class token": self._prediction.features is not None and self._prediction.features.class_token is not None,
        }
        return {name for name, there in found.items() if there}

    @property
    def rgb(self) -> np.ndarray:
        """(H, W, 3) uint8: the view that depth belongs to."""
        return self._frame.rgb

    @cached_property
    def _finite(self) -> torch.Tensor:
        """(H, W) metres on the device, NaN invalid or out of range."""
        return torch.nan_to_num(self.refined.metres, torch.nan, torch.nan, torch.nan)

    @property
    def _depth(self) -> torch.Tensor:
        """(H, W) metres on the device; what is out of range is as the settings say."""
        return self.refined.metres if self.settings.infinite else self._finite

    @cached_property
    def depth(self) -> np.ndarray:
        """(H, W) float32 metres, NaN invalid: REP-118's canonical form."""
        return self._depth.cpu().numpy()

    @cached_property
    def depth_mm(self) -> np.ndarray:
        """(H, W) uint16 millimetres, 0 invalid: REP-118's raw form. Beyond 65.535 m is invalid."""
        mm = torch.nan_to_num(self._finite * 1000, 0.0).round_().cpu().numpy()
        mm[mm > 65535] = 0
        return mm.astype(np.uint16)

    @cached_property
    def relative(self) -> np.ndarray:
        """(H, W) float32 inverse depth of unknown scale and shift, as the network gave it."""
        return self._prediction.at_image_size()

    @cached_property
    def confidence(self) -> np.ndarray:
        """(H, W) float32 from 0 to 1: how well the network agrees with itself on the mirrored image."""
        return self._prediction.resized(self._prediction.confidence).cpu().numpy()

    @cached_property
    def color(self) -> np.ndarray:
        """(H, W, 3) uint8 BGR."""
        color = self.settings.color
        if self.refined.metres is not None:
            return colorize(self._depth, color.near, color.far, color.colormap)
        values = self._prediction.resized()
        low, high = self._relative_range.update(values)
        return colorize(values, high, low, color.colormap)

    # -- features -----------------------------------------------------------------------------------------------

    @property
    def features(self) -> np.ndarray:
        """(tokens, C) float32 of the network's encoder, row by row of the grid."""
        tokens = self._prediction.features.tokens
        return tokens.reshape(-1, tokens.shape[-1]).contiguous().cpu().numpy()

    @property
    def features_grid(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """(width, height) in pixels of the network's input, and (columns, rows) of the grid that lies over it."""
        rows, columns = self._prediction.features.tokens.shape[:2]
        return self._prediction.features.input_size, (columns, rows)

    @property
    def class_token(self) -> np.ndarray:
        """(C,) float32."""
        return self._prediction.features.class_token.cpu().numpy()

    # -- points -------------------------------------------------------------------------------------------------

    @property
    def _rays(self) -> torch.Tensor:
        return self._frame.camera.rays(self.refined.metres.device)

    @cached_property
    def _points(self) -> torch.Tensor:
        """(h, w, 3) of every stride-th pixel in the optical frame; NaN invalid, out of range, or beyond the cloud's limits."""
        cloud = self.settings.cloud
        depth, rays = (values[..., :: cloud.stride, :: cloud.stride] for values in (self._finite, self._rays))
        points = unproject(depth, rays)
        beyond = []
        if cloud.max_range:
            beyond.append(sum(plane.square() for plane in points.unbind(-1)) > cloud.max_range**2)
        if cloud.has_band:
            above = heights(points, self._side.mount)
            beyond += [above < cloud.min_height, above > cloud.max_height]
        return unproject(depth.masked_fill(reduce(torch.logical_or, beyond), torch.nan), rays) if beyond else points

    @property
    def _colours(self) -> np.ndarray:
        """(h, w, 3) uint8 RGB of every stride-th pixel."""
        return self.rgb[:: self.settings.cloud.stride, :: self.settings.cloud.stride]

    @cached_property
    def _above_ground(self) -> torch.Tensor:
        """(h, w) metres of the points above the plane of the ground."""
        depth, rays = (values[..., ::_PLANE_STRIDE, ::_PLANE_STRIDE] for values in (self._finite, self._rays))
        sparse = unproject(depth, rays).reshape(-1, 3)
        turn, shift = (torch.from_numpy(part).to(sparse) for part in (self._side.mount.rotation, self._side.mount.translation))
        p, q, r = ground_plane(sparse @ turn.T + shift, self.settings.cloud.ground_tolerance)
        normal = turn[2] - p * turn[0] - q * turn[1]
        return self._points @ normal + float(shift[2] - p * shift[0] - q * shift[1] - r)

    def _packed(self, points: torch.Tensor, rgb: np.ndarray) -> np.ndarray:
        """A cloud (h, w, 16) uint8 of points and their colours; (1, N, 16) of voxels, if they are asked for."""
        if self.settings.cloud.voxel:
            points, rgb = voxel_grid(points, rgb, self.settings.cloud.voxel)
        return pack_cloud(points, rgb)

    def _chosen(self, mask: torch.Tensor) -> np.ndarray:
        """A cloud (1, N, 16) uint8 of the points where the mask (h, w) is true."""
        return self._packed(self._points[mask][None], self._colours[mask.cpu().numpy()][None])

    @cached_property
    def cloud(self) -> np.ndarray:
        """(h, w, 16) uint8: x, y, z, rgb of each pixel in the optical frame; (1, N, 16) of voxels."""
        return self._packed(self._points, self._colours)

    @cached_property
    def ground(self) -> np.ndarray:
        """(1, N, 16) uint8: the points on the ground."""
        return self._chosen(self._above_ground.abs() <= self.settings.cloud.ground_tolerance)

    @cached_property
    def obstacles(self) -> np.ndarray:
        """(1, N, 16) uint8: the points above the ground."""
        return self._chosen(self._above_ground > self.settings.cloud.ground_tolerance)

    @cached_property
    def clearing(self) -> np.ndarray:
        """(1, N, 16) uint8: points at the far end of the range, on the rays of pixels that are out of range."""
        stride = self.settings.cloud.stride
        metres, (x, y) = self.refined.metres[::stride, ::stride], self._rays[:, ::stride, ::stride]
        empty = torch.isinf(metres) & torch.isfinite(x)
        points = torch.stack([x[empty], y[empty], torch.ones_like(x[empty])], -1) * self.refined.reach
        return pack_cloud(points[None], self._colours[empty.cpu().numpy()][None])

    @cached_property
    def scan(self) -> Scan:
        """The nearest obstacle in each direction, in the scan's frame."""
        return scan_of(
            self.refined.metres, self._rays, self._side.mount, self._side.scan, self.settings.scan, self.refined.reach
        )
