# SPDX-License-Identifier: Apache-2.0
"""The way a frame goes once it is decoded: prediction -> depth in metres -> outputs. No ROS.

A live node and an offline tool call the same code: `DepthEstimator.predict` (stateless), `refine`, `Outputs` (lazy).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from .geometry import AdaptiveRange, Camera, colorize, enlarge, pack_cloud, unproject
from .inference import Prediction
from .models import METRIC


@dataclass(frozen=True)
class Frame:
    """One image as the camera gave it.

    Attributes:
        rgb: (H, W, 3) uint8, RGB.
        camera: the calibration of exactly this image, or None if there is no valid one.
        covered: (H, W) bool, False where a rectified image shows nothing; None: everywhere is something.
    """

    rgb: np.ndarray
    camera: Camera | None = None
    covered: np.ndarray | None = None


@dataclass(frozen=True)
class DepthSettings:
    """What is believed of a network's metres.

    Attributes:
        near, far: metres outside of which depth is invalid, not a wall.
        edge_tolerance: see `geometry.enlarge`; 0: depth is enlarged bilinearly, points between surfaces and all.
    """

    near: float
    far: float
    edge_tolerance: float = 0.0


def refine(prediction: Prediction, settings: DepthSettings, covered: np.ndarray | None = None) -> torch.Tensor | None:
    """Metres at the image's size, (H, W) float32 along z; NaN outside the valid range, between surfaces, and where the image
    shows nothing.

    None for relative output.

    Relative output has no metres in it, and none are invented here.
    """
    if prediction.kind != METRIC:
        return None
    if settings.edge_tolerance:
        depth = enlarge(prediction.tensor, prediction.image_size, prediction.align_corners, settings.edge_tolerance)
    else:
        depth = prediction.resized()
    good = (depth >= settings.near) & (depth <= settings.far)
    if covered is not None:
        good &= torch.from_numpy(covered).to(depth.device)
    return torch.where(good, depth, torch.nan)


@dataclass(frozen=True)
class ColorSettings:
    """How depth becomes a picture: a colour map, and the metres that its ends stand for."""

    colormap: str = "turbo"
    near: float = 0.0
    far: float = 10.0


class Outputs:
    """Everything that can be published of one frame, each computed when first asked for and then kept.

    Every array is on the CPU, C-contiguous and of the image's size.
    """

    def __init__(
        self,
        frame: Frame,
        prediction: Prediction,
        settings: DepthSettings,
        color: ColorSettings,
        relative_range: AdaptiveRange,
    ):
        self._frame, self._prediction, self._color, self._relative_range = frame, prediction, color, relative_range
        self._metres = refine(prediction, settings, frame.covered)

    @property
    def is_metric(self) -> bool:
        """Whether there are metres."""
        return self._metres is not None

    @property
    def rgb(self) -> np.ndarray:
        """(H, W, 3) uint8: the view that depth belongs to."""
        return self._frame.rgb

    @cached_property
    def depth(self) -> np.ndarray:
        """(H, W) float32 metres, NaN invalid: REP-118's canonical form."""
        return self._metres.cpu().numpy()

    @cached_property
    def depth_mm(self) -> np.ndarray:
        """(H, W) uint16 millimetres, 0 invalid: REP-118's raw form. Beyond 65.535 m is invalid."""
        mm = torch.nan_to_num(torch.round(self._metres * 1000), nan=0.0)
        return torch.where(mm > 65535, 0, mm).to(torch.int32).cpu().numpy().astype(np.uint16)

    @cached_property
    def relative(self) -> np.ndarray:
        """(H, W) float32 inverse depth of unknown scale and shift, as the network gave it."""
        return self._prediction.at_image_size()

    @cached_property
    def color(self) -> np.ndarray:
        """(H, W, 3) uint8 BGR."""
        if self.is_metric:
            picture = colorize(self._metres, self._color.near, self._color.far, self._color.colormap)
        else:
            values = self._prediction.resized()
            low, high = self._relative_range.update(values)
            picture = colorize(values, high, low, self._color.colormap)
        return picture.cpu().numpy()

    @cached_property
    def cloud(self) -> np.ndarray:
        """(H, W, 16) uint8: x, y, z, rgb of each pixel in the optical frame. Needs metres and a camera."""
        points = unproject(self._metres, self._frame.camera.rays(self._metres.device))
        return pack_cloud(points, self._frame.rgb)
