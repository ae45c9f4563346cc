# SPDX-License-Identifier: Apache-2.0
"""The camera model: intrinsics of one image size, and the ray of every pixel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import torch

PINHOLE, PLUMB_BOB, RATIONAL, EQUIDISTANT = "", "plumb_bob", "rational_polynomial", "equidistant"
_MAX_TANGENT = 11.4  # of the angle to the optical axis: 85 degrees; beyond, depth along z says nothing
_COEFFICIENTS = {PINHOLE: (0,), PLUMB_BOB: (4, 5), RATIONAL: (8, 12, 14), EQUIDISTANT: (4,)}


class CameraError(ValueError):
    """A calibration that cannot be true; the message says which value and what to do."""


class UncalibratedError(CameraError):
    """Zeros or placeholders where a calibration should be: nobody has calibrated this camera."""


@dataclass(frozen=True)
class Camera:
    """Intrinsics in pixels of an image of `width` x `height`; pixel centres lie at whole coordinates.

    `model` is the lens distortion that the image still has, in the words of sensor_msgs/CameraInfo; "" is none.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    model: str = PINHOLE
    distortion: tuple[float, ...] = ()

    def __post_init__(self):
        """Refuse what no camera can have.

        Raises:
            CameraError: NaN, a placeholder focal length (<= 1 pixel), an unknown distortion model.
        """
        values = (self.fx, self.fy, self.cx, self.cy, *self.distortion)
        if not all(math.isfinite(v) for v in values):
            raise CameraError("the calibration holds NaN or Inf: calibrate the camera, or give its driver a calibration file")
        if self.model == PINHOLE and any(self.distortion):
            raise CameraError("distortion coefficients without a distortion model: name the model, such as plumb_bob")
        if self.fx == 0 and self.fy == 0:
            raise UncalibratedError(
                "K is all zero, which means uncalibrated: calibrate the camera, or give its driver a calibration file"
            )
        if self.fx <= 1 or self.fy <= 1:
            raise UncalibratedError(
                f"the focal length is {self.fx:g} x {self.fy:g} pixels, a placeholder: calibrate the camera, or give its "
                "driver a calibration file"
            )
        if self.model not in _COEFFICIENTS:
            known = ", ".join(name for name in _COEFFICIENTS if name)
            raise CameraError(
                f"unknown distortion model '{self.model}', expected one of: {known}; or publish a rectified image"
            )
        if len(self.distortion) not in _COEFFICIENTS[self.model] and self.model != PINHOLE:
            expected = " or ".join(str(n) for n in _COEFFICIENTS[self.model])
            raise CameraError(f"distortion model '{self.model}' takes {expected} coefficients, got {len(self.distortion)}")

    @staticmethod
    def from_fov(width: int, height: int, fov_deg: float) -> Camera:
        """An ideal pinhole camera with a horizontal field of view in degrees and square pixels."""
        focal = width / 2 / math.tan(math.radians(fov_deg) / 2)
        return Camera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)

    def rays(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """(2, height, width) float32: x / z and y / z of the ray through each pixel, lens distortion undone.

        Multiplied by depth along z they give x and y in metres in the optical frame (x right, y down, z forward:
        REP-103). Computed once per camera and device.
        """
        return _rays(self, str(device))

    def project(self, points: np.ndarray) -> np.ndarray:
        """(N, 2) pixels u, v of points (N, 3) in the optical frame, as the lens distorts them; NaN behind the camera."""
        points = np.asarray(points, np.float64).reshape(-1, 3)
        pixels = np.full((len(points), 2), np.nan)
        z = points[:, 2]
        ahead = np.isfinite(points).all(1) & (z > 1e-3) & (np.abs(points[:, :2]).max(1) < _MAX_TANGENT * z)
        if not ahead.any():
            return pixels
        k = np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]])
        if self.model == PINHOLE:
            pixels[ahead] = points[ahead, :2] / z[ahead, None] * (self.fx, self.fy) + (self.cx, self.cy)
            return pixels
        lens = cv2.fisheye if self.model == EQUIDISTANT else cv2
        found, _ = lens.projectPoints(points[ahead].reshape(-1, 1, 3), np.zeros(3), np.zeros(3), k, np.asarray(self.distortion))
        pixels[ahead] = found.reshape(-1, 2)
        # Beyond the field that it was calibrated for, a lens model folds back into the image: a pixel's own ray has to agree.
        inside = (pixels > -0.5).all(1) & (pixels < (self.width - 0.5, self.height - 0.5)).all(1)  # False for NaN
        u, v = np.rint(pixels[inside]).astype(np.int64).T
        off = np.abs(self.rays().numpy()[:, v, u].T - points[inside, :2] / z[inside, None])
        pixels[np.flatnonzero(inside)[~(off < 2 / np.array([self.fx, self.fy])).all(1)]] = np.nan
        return pixels

    @property
    def focal(self) -> float:
        """Focal length in short sides of the image: the same camera has the same at every image size."""
        return (self.fx if self.width <= self.height else self.fy) / min(self.width, self.height)


@lru_cache(maxsize=16)
def _rays(camera: Camera, device: str) -> torch.Tensor:
    u, v = np.meshgrid(np.arange(camera.width, dtype=np.float64), np.arange(camera.height, dtype=np.float64))
    if camera.model == PINHOLE:
        x, y = (u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy
    else:
        k = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]])
        pixels = np.stack([u, v], -1).reshape(-1, 1, 2)
        if camera.model == EQUIDISTANT:
            points = cv2.fisheye.undistortPoints(pixels, k, np.asarray(camera.distortion))
            points[np.abs(points).max(-1) > _MAX_TANGENT] = np.nan  # at the rim, and where OpenCV did not converge
        else:
            points = _undistort(pixels, k, np.asarray(camera.distortion))
        x, y = points.reshape(camera.height, camera.width, 2).transpose(2, 0, 1)
    return torch.from_numpy(np.stack([x, y]).astype(np.float32)).to(device)


def _undistort(pixels: np.ndarray, k: np.ndarray, distortion: np.ndarray) -> np.ndarray:
    """Rays of distorted pixels; NaN where no ray leads there (the polynomial folds back on itself in the corners)."""
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 40, 1e-8)
    if hasattr(cv2, "undistortPointsIter"):  # OpenCV 4
        points = cv2.undistortPointsIter(pixels, k, distortion, None, None, criteria)
    else:  # OpenCV 5
        points = cv2.undistortPoints(pixels, k, distortion, criteria=criteria)
    again, _ = cv2.projectPoints(
        np.concatenate([points, np.ones_like(points[..., :1])], -1), np.zeros(3), np.zeros(3), k, distortion
    )
    met = np.linalg.norm(again.reshape(-1, 2) - pixels.reshape(-1, 2), axis=-1) <= 0.1
    points.reshape(-1, 2)[~met] = np.nan
    return points
