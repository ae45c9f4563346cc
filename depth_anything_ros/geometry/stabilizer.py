# SPDX-License-Identifier: Apache-2.0
"""Depth that does not jump from frame to frame, and does not hide what really comes nearer.

Networks give each image a scale (and shift) of its own. From single images a jump of scale and an approach look alike: every
depth shrinks by one factor. The image tells them apart: what comes nearer grows. So points are tracked from the last frame to
this one, the camera's motion is found from where they went and how far away they were, and their depth is carried along.
The new frame is fitted to that, in inverse depth; a slow pull towards the network's own values keeps errors from adding up.
No frame waits for another.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from .camera import Camera
from .grid import sample_grid
from .rectify import Coverage
from .scale import FitError, fit_inverse_depth

_WIDTH = 320  # pixels that images are tracked at
_CORNERS, _APART = 250, 8
_ENOUGH = 25  # tracked points, below which nothing is said about the motion
_STILL = 0.06  # pixels at _WIDTH: a median shift below is a camera that stands
_GONE = 0.3  # of the corners found again, below which it is another scene
_LONGEST = 1.0  # seconds between frames that are compared
_NOISE = 0.5  # pixels at _WIDTH
_SAME = 6.0  # grey levels, below which a pixel shows the same
_NEW, _LOCAL = 0.2, 0.025  # change of inverse depth of a pixel, and of the 9 x 9 around it, above which it is not noise
_RIM = 17  # pixels at _WIDTH that corners keep from where a rectified image shows nothing
_SLOWEST = 1 / 20  # share of the network's own scale that a standing camera takes over in each frame
_LEAST = 0.3  # of its inverse depth that a shift leaves of any pixel: nothing far becomes nothing at all
_CLOSE, _BETTER = 0.01, 0.6  # what a scale may leave over; what a shift has to leave of that


@dataclass(frozen=True)
class StabilizerSettings:
    """How frames are tied to those before.

    Attributes:
        enabled: off leaves the network's values as they are.
        memory: frames over which the network's own scale is averaged.
        pixels: while the camera stands, average pixels that show the same, too.
    """

    enabled: bool = False
    memory: int = 20
    pixels: bool = False


@dataclass
class _Before:
    """The last frame: its small grey image, the corners in it (N, 2) and their points in space (N, 3), its inverse depth."""

    stamp_ns: int
    camera: Camera
    grey: np.ndarray
    corners: np.ndarray
    points: np.ndarray
    inverse: torch.Tensor


class Stabilizer:
    """One per camera; frames in order.

    Attributes:
        state: of the newest frame, in a word: "new scene", "tracking", "still" or "blind" (too little to track).
    """

    def __init__(self, settings: StabilizerSettings):
        self.settings = settings
        self.reset()

    def reset(self) -> None:
        """Forget what was before."""
        self._before: _Before | None = None
        self._a, self._b, self._count = 1.0, 0.0, 0
        self.state = "new scene"

    def update(
        self,
        inverse: torch.Tensor,
        rgb: np.ndarray,
        camera: Camera,
        align_corners: bool,
        stamp_ns: int,
        covered: Coverage | None = None,
    ) -> torch.Tensor:
        """The frame's inverse depth, tied to the frames before.

        Args:
            inverse: (h, w) 1 / metres at the network's grid.
            rgb: (H, W, 3) uint8, the image that it belongs to.
            camera: of that image.
            stamp_ns: of the frame; one that goes back in time, or comes after more than a second, begins anew.
            covered: where the image shows something; its black rim stands still, whatever the camera does.
        """
        size = rgb.shape[:2]
        factor = min(1.0, _WIDTH / size[1])
        small = cv2.resize(rgb, (round(size[1] * factor), round(size[0] * factor)), interpolation=cv2.INTER_AREA)
        grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        before = self._before
        if before and not (
            0 < stamp_ns - before.stamp_ns <= _LONGEST * 1e9 and before.camera == camera and before.grey.shape == grey.shape
        ):
            self.reset()
            before = None

        def to_image(corners: np.ndarray) -> np.ndarray:  # cv2.resize keeps the image's borders, not its pixel centres
            return (corners + 0.5) / factor - 0.5

        if before:
            self._follow(before, inverse, grey, to_image, align_corners, size)
            inverse = torch.maximum(self._a * inverse + self._b, _LEAST * inverse)
            if self.settings.pixels and self.state == "still" and before.inverse.shape == inverse.shape:
                inverse = _settle(before, inverse, grey, 2 / self.settings.memory)
        mask = covered.inner(grey.shape, _RIM) if covered else None
        corners = cv2.goodFeaturesToTrack(grey, _CORNERS, 0.01, _APART, mask=mask)
        corners = np.empty((0, 2), np.float32) if corners is None else corners.reshape(-1, 2)
        pixels = to_image(corners)
        found = sample_grid(inverse, pixels, size, align_corners)
        points = _points(camera, pixels, found)
        kept = np.isfinite(points).all(1)
        self._before = _Before(stamp_ns, camera, grey, corners[kept], points[kept], inverse)
        return inverse

    def _follow(self, before: _Before, inverse, grey, to_image, align_corners, size) -> None:
        """Bring a, b and the state up to the new frame."""
        leak = max(1 / self.settings.memory, 1 / (self._count + 2))
        self._count += 1
        if len(before.corners) < _ENOUGH:
            self.state = "blind"
        else:
            now, found = _track(before.grey, grey, before.corners)
            if found.sum() < max(_ENOUGH, _GONE * len(found)):
                self.reset()
                return
            points, shifts = before.points[found], np.linalg.norm(now[found] - before.corners[found], axis=1)
            pixels = to_image(now[found])
            if np.median(shifts) < _STILL:
                self.state, expected = "still", points[:, 2]
                close = shifts < 4 * _NOISE
            else:
                self.state = "tracking"
                rays = _points(before.camera, pixels, np.ones(len(pixels)))[:, :2]
                seen = np.isfinite(rays).all(1)  # a distorted lens has pixels without a ray
                rays, points, pixels = rays[seen], points[seen], pixels[seen]
                noise = _NOISE / grey.shape[1] * before.camera.width / before.camera.fx
                expected, close = _carry(points, rays, noise)
            here = sample_grid(inverse, pixels, size, align_corners)
            close &= (expected > 0) & np.isfinite(here) & (here > 0)
            if close.sum() >= _ENOUGH:
                self._a, self._b = _fit(here[close], 1 / expected[close])
            else:
                self.state = "blind"
        if self.state == "blind":
            self._a, self._b = 1.0, 0.0
        elif self.state == "still":  # what moves too slowly to be seen from one frame to the next must not be held for ever
            leak = max(leak, _SLOWEST)
        self._a, self._b = self._a ** (1 - leak), self._b * (1 - leak)


def _points(camera: Camera, pixels: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """(N, 3) in the optical frame of pixels (N, 2) with inverse depth (N,); NaN where there is none."""
    rays = camera.rays().numpy()
    u = np.clip(np.rint(pixels[:, 0]), 0, camera.width - 1).astype(np.int64)
    v = np.clip(np.rint(pixels[:, 1]), 0, camera.height - 1).astype(np.int64)
    offset = (pixels - np.stack([u, v], 1)) / (camera.fx, camera.fy)
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = np.where(inverse > 0, 1 / inverse, np.nan)
    return np.concatenate([(rays[:, v, u].T + offset) * depth[:, None], depth[:, None]], 1)


def _track(before: np.ndarray, now: np.ndarray, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where corners (N, 2) of one image are in the next, and which of them are found there and, from there, back again."""
    options = {"winSize": (15, 15), "maxLevel": 3}
    there, good, _ = cv2.calcOpticalFlowPyrLK(before, now, corners, None, **options)
    back, good_back, _ = cv2.calcOpticalFlowPyrLK(now, before, there, None, **options)
    again = np.linalg.norm(back - corners, axis=1) < _NOISE
    return there, again & (good[:, 0] == 1) & (good_back[:, 0] == 1)


def _carry(points: np.ndarray, rays: np.ndarray, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Depths (N,) after the camera's motion of points (N, 3) that are now seen along rays (N, 2), and which of them fit it.

    The motion is the one that projects the points onto the rays, by Gauss-Newton with Huber's weights.
    """
    rotation, translation = np.eye(3), np.zeros(3)
    for _ in range(8):
        moved = points @ rotation.T + translation
        z = np.maximum(moved[:, 2], 1e-3)
        x, y, inverse = moved[:, 0] / z, moved[:, 1] / z, 1 / z
        rest = rays - np.stack([x, y], 1)
        zero = np.zeros_like(x)
        by_x = np.stack([inverse, zero, -x * inverse, -x * y, 1 + x * x, -y], 1)
        by_y = np.stack([zero, inverse, -y * inverse, -(1 + y * y), x * y, x], 1)
        weight = 1 / np.maximum(1, np.linalg.norm(rest, axis=1) / noise)
        jacobian = np.stack([by_x, by_y], 1)
        normal = np.einsum("nij,nik,n->jk", jacobian, jacobian, weight)
        step = np.linalg.solve(normal + 1e-9 * np.trace(normal) * np.eye(6), np.einsum("nij,ni,n->j", jacobian, rest, weight))
        turn, _ = cv2.Rodrigues(step[3:])
        rotation, translation = turn @ rotation, turn @ translation + step[:3]
        if np.linalg.norm(step) < 1e-6:
            break
    moved = points @ rotation.T + translation
    with np.errstate(divide="ignore", invalid="ignore"):
        rest = np.linalg.norm(rays - moved[:, :2] / moved[:, 2:], axis=1)
    return moved[:, 2], rest < 3 * noise


def _fit(inverse: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """The scale that most points agree on; and a shift only where it explains what the scale leaves over.

    A regression with a shift takes noise of the network for a shift, makes the range of depth smaller in each frame, and so
    without end; the median of ratios does not.
    """
    ratio = np.log(truth / inverse)
    middle = float(np.median(ratio))
    close = np.abs(ratio - middle) <= max(3 * 1.4826 * float(np.median(np.abs(ratio - middle))), 0.01)
    a = float(np.exp(ratio[close].mean()))
    rest = float(np.median(np.abs(a * inverse - truth) / truth))
    if rest > _CLOSE:
        with contextlib.suppress(FitError):
            fit = fit_inverse_depth(inverse, truth, shift=True)
            better = float(np.median(np.abs(fit.a * inverse + fit.b - truth) / truth)) < _BETTER * rest
            if better and 0.3 < fit.a < 3:
                return fit.a, fit.b
    return a, 0.0


def _settle(before: _Before, inverse: torch.Tensor, grey: np.ndarray, share: float) -> torch.Tensor:
    """Inverse depth moved `share` of the way from the last frame's, where the image is still the same and depth about the same.

    Something new before a wall of its own grey is there at once, and something plain that comes nearer is never held back by
    more than a few per cent, though its pixels show the same: its mean is compared with what is held, not the last frame's.
    """
    change = cv2.GaussianBlur(cv2.absdiff(before.grey, grey).astype(np.float32), (5, 5), 0)
    same = cv2.resize(change, inverse.shape[::-1], interpolation=cv2.INTER_LINEAR) < _SAME
    step = inverse - before.inverse
    change = step / before.inverse.clamp_min(1e-6)
    local = F.avg_pool2d(change[None, None], 9, 1, 4, count_include_pad=False)[0, 0]
    moved = (
        F.max_pool2d((local.abs() > _LOCAL)[None, None].to(inverse.dtype), 9, 1, 4)[0, 0] > 0
    )  # all of it, not patch by patch
    same = torch.from_numpy(same).to(inverse.device) & (change.abs() < _NEW) & ~moved
    return torch.where(same, before.inverse + share * step, inverse)
