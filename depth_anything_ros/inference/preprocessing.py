# SPDX-License-Identifier: Apache-2.0
"""The published rule for what the network gets to see (DepthAnything/Depth-Anything-V2, `util/transform.py`)."""

from __future__ import annotations

import math

import cv2
import numpy as np

from ..models.zoo import IMAGENET_MEAN, IMAGENET_STD

MAX_ASPECT = 8.0
_DARKEST, _GREY = 0.2, 0.42  # mean brightness: of images that are left alone, and what darker ones get
_SCALE = 1.0 / (np.asarray(IMAGENET_STD) * 255)
_OFFSET = np.asarray(IMAGENET_MEAN) / np.asarray(IMAGENET_STD)


class ImageError(ValueError):
    """An image that cannot be given to a network; the message says what was expected."""


def network_size(width: int, height: int, input_size: int, patch: int) -> tuple[int, int]:
    """(width, height) of the network's input for an image of `width` x `height`.

    The short side becomes `input_size`, the aspect ratio is kept, and both sides are rounded (half to even) to
    multiples of the patch, but never below `input_size`. 640 x 480 at 518 and patch 14 gives 686 x 518.

    Raises:
        ImageError: an empty image, or one so long that the network would need gigabytes for it.
    """
    if width < 1 or height < 1:
        raise ImageError(f"the image is empty ({width}x{height})")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(f"the image is {width}x{height}: sides that differ by more than {MAX_ASPECT:g} times are refused")
    scale = max(input_size / width, input_size / height)

    def side(length: int) -> int:
        rounded = round(scale * length / patch) * patch
        return rounded if rounded >= input_size else math.ceil(scale * length / patch) * patch

    return side(width), side(height)


def check_input_size(input_size: int, patch: int) -> None:
    """Raise ValueError unless `input_size` is a positive multiple of the patch."""
    if input_size < patch or input_size % patch:
        below = max(patch, input_size // patch * patch)
        raise ValueError(f"input_size {input_size} is not a multiple of {patch}; the nearest are {below} and {below + patch}")


def normalize_exposure(rgb: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) uint8 so dark that networks lose their way, with a gamma that gives it a common brightness.

    Any other is returned as it is: there, a gamma does more harm than good (`docs/benchmarks.md`).
    """
    mean = float(rgb[::4, ::4].mean()) / 255
    if mean >= _DARKEST:
        return rgb
    gamma = math.log(_GREY) / math.log(max(mean, 0.02))
    return cv2.LUT(rgb, (np.linspace(0, 1, 256) ** gamma * 255).round().astype(np.uint8))


def preprocess(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (bicubic, no antialiasing) and normalise with ImageNet's mean and deviation.

    Args:
        rgb: (H, W, 3) uint8, RGB.
        size: (width, height) from `network_size`.

    Returns:
        (3, height, width) float32, C-contiguous.
    """
    image = rgb.astype(np.float64)  # as the reference: OpenCV's float32 resize is off by 2e-4
    if (rgb.shape[1], rgb.shape[0]) != size:
        image = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
    image *= _SCALE
    image -= _OFFSET
    return np.ascontiguousarray(image.transpose(2, 0, 1), np.float32)
