# SPDX-License-Identifier: Apache-2.0
"""The way a frame goes once it is decoded: prediction -> depth in metres -> outputs. No ROS.

A live node and an offline tool call the same code: `DepthEstimator.predict` (stateless), `Refiner.refine` (one per camera,
frames in order), `outputs.Outputs` (lazy).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F

from .geometry import (
    Camera,
    Coverage,
    Scale,
    ScaleEstimator,
    ScaleSettings,
    Stabilizer,
    StabilizerSettings,
    Transform,
    enlarge,
    grid_rays,
    ground_inverse_depth,
    sample_grid,
    smooth,
)
from .inference import Prediction
from .models import METRIC

_FARTHEST = 1e6  # metres; inverse depth of nothing and less stands for it
_SATURATED = 0.97  # of what a metric network can say: there, it says that it is farther
# source -> metres, radians: a transform that differs by more from the last frame's is another one. A camera that sways sees the
# ground as before; points of a sensor that sways against it, or that were put elsewhere, do not fit any more.
_MOVED = {"sparse": (0.01, 0.01), "ground": (0.05, 0.1)}
_GROUND = (0.1, 4.0)  # 1 / metres: the nearest and farthest ground that a scale is taken from


@dataclass(frozen=True)
class Frame:
    """One image as the camera gave it.

    Attributes:
        rgb: (H, W, 3) uint8, RGB.
        camera: the calibration of exactly this image, or None if there is no valid one.
        covered: where a rectified image shows something; None: everywhere.
        stamp_ns: nanoseconds since the clock's epoch.
    """

    rgb: np.ndarray
    camera: Camera | None = None
    covered: Coverage | None = None
    stamp_ns: int = 0


@dataclass(frozen=True)
class Side:
    """What a frame may need from elsewhere.

    Attributes:
        mount: (robot's base frame <- optical frame).
        sensor: (optical frame <- range sensor's frame).
        points: (N, 3) metres in the range sensor's frame, of about the frame's time.
        scan: (frame of the scan <- optical frame).
        problem: why the source of the scale has nothing for this frame.
    """

    mount: Transform | None = None
    sensor: Transform | None = None
    points: np.ndarray | None = None
    scan: Transform | None = None
    problem: str = ""


@dataclass(frozen=True)
class DepthSettings:
    """What is believed of a network's metres, and how they come to the image's size.

    Attributes:
        near, far: metres; nearer is invalid, farther is out of range, and neither is a wall.
        edge_tolerance, upsampling: see `geometry.enlarge`.
        median, bilateral: see `geometry.smooth`.
        min_confidence: pixels below are invalid, where the prediction has a confidence.
    """

    near: float
    far: float
    edge_tolerance: float = 0.0
    upsampling: str = "bilinear"
    median: int = 0
    bilateral: float = 0.0
    min_confidence: float = 0.0


@dataclass(frozen=True)
class RefineSettings:
    """How a prediction becomes depth."""

    depth: DepthSettings
    scale: ScaleSettings = field(default_factory=ScaleSettings)
    stabilizer: StabilizerSettings = field(default_factory=StabilizerSettings)


@dataclass(frozen=True)
class Refined:
    """What a frame's prediction was refined to.

    Attributes:
        metres: (H, W) float32 along z at the image's size: NaN invalid, +Inf out of range; None: there are no metres.
        scale: what the metres come from; None: from the network itself.
        steadiness: the stabiliser's state in a word; empty: it is off.
        reach: metres, what is out of range is beyond.
    """

    metres: torch.Tensor | None
    scale: Scale | None = None
    steadiness: str = ""
    reach: float = math.inf


class Refiner:
    """Scale, stabiliser, edges and range of one camera: the only step of the pipeline with a memory.

    The memory belongs to one network, calibration and set of settings; when one of them changes, it starts anew.

    Attributes:
        pairs: of the newest frame, (N,) inverse depth of the network and (N,) 1 / metres of the scale's source; None: none.
    """

    def __init__(self):
        self.reset()

    def reset(self) -> None:
        """Begin anew with the next frame."""
        self._key = self._transform = self.pairs = None

    def refine(self, frame: Frame, prediction: Prediction, settings: RefineSettings, side: Side = Side()) -> Refined:
        """Depth of one frame; frames in order of time.

        Relative output has no metres in it, and none are invented: there are none until a scale is valid.
        """
        key = (prediction.network, prediction.kind, frame.camera, settings.scale, settings.stabilizer)
        if key != self._key:
            self.reset()
            self._key = key
            self._scale, self._stabilizer = ScaleEstimator(settings.scale), Stabilizer(settings.stabilizer)
        self.pairs = None
        relative = prediction.kind != METRIC
        inverse = prediction.tensor if relative else prediction.tensor.clamp_min(1 / _FARTHEST).reciprocal()
        if prediction.limit:
            inverse = F.threshold(inverse, 1 / (_SATURATED * prediction.limit), 0.0)
        scale, steadiness = None, ""
        if settings.scale.source != "none":
            scale = self._scaled(inverse, relative, frame, prediction, settings, side)
            if not scale.valid:
                self._stabilizer.reset()
                return Refined(None, scale)
            inverse = scale.a * inverse + scale.b
        elif relative:
            return Refined(None)
        if settings.stabilizer.enabled:
            steadiness = "no calibration"
            if frame.camera:
                steady = self._stabilizer.update(
                    inverse, frame.rgb, frame.camera, prediction.align_corners, frame.stamp_ns, frame.covered
                )
                inverse = torch.where(inverse * settings.depth.far <= 1, inverse, steady)  # what is out of range stays there
                steadiness = self._stabilizer.state
        reach = settings.depth.far
        if prediction.limit:  # scaled, too
            reach = min(reach, _SATURATED * prediction.limit / (scale.a if scale else 1.0))
        return Refined(_at_image_size(inverse, frame, prediction, settings.depth), scale, steadiness, reach)

    def _scaled(self, inverse, relative: bool, frame: Frame, prediction: Prediction, settings: RefineSettings, side: Side):
        source, camera = settings.scale.source, frame.camera
        if source == "fixed":
            return self._scale.fixed(prediction.network, camera)
        if source == "focal":
            return self._scale.focal(camera)
        transform = side.sensor if source == "sparse" else side.mount
        if transform:
            if self._transform and transform.differs(self._transform, *_MOVED[source]):
                self._scale.reset()
                self._stabilizer.reset()
            self._transform = transform
        problem = side.problem or ("" if camera else "no calibration")
        if not problem and (transform is None or source == "sparse" and side.points is None):
            problem = "no transform" if transform is None else "no points"
        if not problem:
            if source == "sparse":
                self.pairs = _seen_by_sensor(inverse, prediction, frame, side, settings.depth)
            else:
                self.pairs = _on_the_ground(inverse, prediction, frame, side.mount, settings.scale.camera_height)
        return self._scale.update(self.pairs, relative, frame.stamp_ns, problem)


def _seen_by_sensor(inverse: torch.Tensor, prediction: Prediction, frame: Frame, side: Side, depth: DepthSettings):
    """Pairs of what the network and what a range sensor say of the same pixels."""
    points = side.sensor.apply(side.points.astype(np.float64))
    points = points[(points[:, 2] >= depth.near) & (points[:, 2] <= depth.far)]
    pixels = frame.camera.project(points)
    found = sample_grid(inverse, pixels, prediction.image_size, prediction.align_corners)
    if prediction.kind == METRIC:
        found[found <= 0] = np.nan  # beyond the network's range
    seen = np.isfinite(found)
    if frame.covered is not None:
        u, v = np.rint(pixels[seen]).astype(np.int64).T
        seen[seen] = frame.covered.mask[v, u]
    return found[seen], 1 / points[seen, 2]


def _on_the_ground(inverse: torch.Tensor, prediction: Prediction, frame: Frame, mount: Transform, camera_height: float):
    """Pairs of what the network says and of how far away the ground would be, over the pixels that may show it."""
    height = camera_height or float(mount.translation[2])
    rays = grid_rays(frame.camera, tuple(inverse.shape), prediction.align_corners, str(inverse.device))
    stride = max(1, round(math.sqrt(inverse.numel() / 12000)))
    ground = ground_inverse_depth(rays[:, ::stride, ::stride], mount.rotation[2], max(height, 1e-3))
    may = (ground > _GROUND[0]) & (ground < _GROUND[1])
    if frame.covered is not None:
        may &= ~frame.covered.hidden(tuple(inverse.shape), str(may.device))[::stride, ::stride]
    return inverse[::stride, ::stride][may].cpu().numpy(), ground[may].cpu().numpy()


def _at_image_size(inverse: torch.Tensor, frame: Frame, prediction: Prediction, settings: DepthSettings) -> torch.Tensor:
    """Metres (H, W) with NaN and +Inf in their places, of 1 / metres at the network's grid."""
    # All that is far out of range is at one distance: noise in the sky is no surface, and no edge.
    inverse = smooth(inverse, settings.median, settings.bilateral).clamp_min(max(0.25 / settings.far, 1 / _FARTHEST))
    size, corners = prediction.image_size, prediction.align_corners
    depth = enlarge(inverse.reciprocal(), size, corners, settings.edge_tolerance, settings.upsampling, frame.rgb)
    # In place, and several times as fast as `where`; NaN stays. What is not above the threshold is replaced.
    F.threshold_(depth.neg_(), _below(-settings.far), -torch.inf)
    F.threshold_(depth.neg_(), _below(settings.near), torch.nan)
    if settings.min_confidence and prediction.confidence is not None:
        depth.masked_fill_(prediction.resized(prediction.confidence) < settings.min_confidence, torch.nan)
    if frame.covered is not None:
        depth.masked_fill_(frame.covered.hidden(size, str(depth.device)), torch.nan)
    return depth


def _below(value: float) -> float:
    """The float32 that comes just before."""
    return float(np.nextafter(np.float32(value), np.float32(-np.inf)))
