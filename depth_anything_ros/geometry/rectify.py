# SPDX-License-Identifier: Apache-2.0
"""The view of an ideal camera out of a distorted image, and turned images: how an image is made fit for the network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import torch

from .camera import EQUIDISTANT, PINHOLE, Camera

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
ROTATIONS = (0, 90, 180, 270)
_WIDEST = 120.0  # degrees; a wider flat view is mostly rim


@dataclass(frozen=True, eq=False)
class Coverage:
    """Where a view shows something. What frames need of it is made once: one object per view, not per frame.

    Attributes:
        mask: (H, W) bool, False where the view shows nothing.
    """

    mask: np.ndarray

    def hidden(self, size: tuple[int, int], device: str) -> torch.Tensor:
        """(h, w) bool on a device: where a grid of this size over the view shows nothing."""
        return _hidden(self, size, device)

    def inner(self, size: tuple[int, int], rim: int) -> np.ndarray:
        """(h, w) uint8: where a grid of this size shows something in all of the `rim` x `rim` around a pixel; else 0."""
        return _inner(self, size, rim)


@dataclass(frozen=True)
class Rectification:
    """From the image of a distorted camera to that of an ideal one.

    Attributes:
        source: the camera as it is, with its distortion.
        target: the ideal camera of the view, of the same size.
        rotation: row-major 3 x 3, from the source's optical frame to the target's (CameraInfo's R).
    """

    source: Camera
    target: Camera
    rotation: tuple[float, ...] = IDENTITY

    def apply(self, image: np.ndarray) -> np.ndarray:
        """The view (H, W, 3) uint8 of an image (H, W, 3) uint8, bilinear; black where the image does not reach."""
        return cv2.remap(image, *_maps(self), cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)

    def covered(self) -> np.ndarray:
        """(H, W) bool: pixels of the view that the image reaches."""
        return self.coverage().mask

    def coverage(self) -> Coverage:
        """The same for `pipeline.Frame`."""
        return _coverage(self)

    @property
    def wide(self) -> bool:
        """Whether the flat view would be so wide that true rays serve better."""
        return self.target.width / self.target.fx > 2 * math.tan(math.radians(_WIDEST / 2))


def ideal_camera(source: Camera) -> Camera:
    """An ideal camera of the same size whose view holds no pixel that the distorted image does not reach."""
    k, size = _matrix(source), (source.width, source.height)
    distortion = np.asarray(source.distortion)
    if source.model == EQUIDISTANT:
        new = cv2.fisheye.estimateNewCameraMatrixForUndistortRectify(k, distortion, size, np.eye(3), balance=0.0)
    else:
        new, _ = cv2.getOptimalNewCameraMatrix(k, distortion, size, 0.0)
    return Camera(*size, float(new[0, 0]), float(new[1, 1]), float(new[0, 2]), float(new[1, 2]))


def rotate(image: np.ndarray, degrees: int) -> np.ndarray:
    """An image turned clockwise by 0, 90, 180 or 270 degrees; a contiguous array."""
    return np.ascontiguousarray(np.rot90(image, -degrees // 90)) if degrees else image


def _matrix(camera: Camera) -> np.ndarray:
    return np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]])


@lru_cache(maxsize=16)
def _float_maps(rectification: Rectification) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel of the view lies in the image: x and y, float32 (H, W)."""
    source, target = rectification.source, rectification.target
    k, new, turn = _matrix(source), _matrix(target), np.reshape(rectification.rotation, (3, 3))
    distortion, size = np.asarray(source.distortion), (target.width, target.height)
    if source.model == EQUIDISTANT:
        return cv2.fisheye.initUndistortRectifyMap(k, distortion, turn, new, size, cv2.CV_32FC1)
    return cv2.initUndistortRectifyMap(k, distortion if source.model != PINHOLE else None, turn, new, size, cv2.CV_32FC1)


@lru_cache(maxsize=16)
def _maps(rectification: Rectification) -> tuple[np.ndarray, np.ndarray]:
    """The same in OpenCV's fixed-point form, which is remapped twice as fast."""
    return cv2.convertMaps(*_float_maps(rectification), cv2.CV_16SC2)


@lru_cache(maxsize=16)
def _coverage(rectification: Rectification) -> Coverage:
    x, y = _float_maps(rectification)
    source = rectification.source
    return Coverage((x >= 0) & (y >= 0) & (x <= source.width - 1) & (y <= source.height - 1))


def _resized(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST)


@lru_cache(maxsize=32)
def _hidden(coverage: Coverage, size: tuple[int, int], device: str) -> torch.Tensor:
    return torch.from_numpy(_resized(coverage.mask, size) == 0).to(device)


@lru_cache(maxsize=16)
def _inner(coverage: Coverage, size: tuple[int, int], rim: int) -> np.ndarray:
    return cv2.erode(_resized(coverage.mask, size), np.ones((rim, rim), np.uint8), borderValue=1)
