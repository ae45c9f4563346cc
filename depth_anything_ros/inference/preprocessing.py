# SPDX-License-Identifier: Apache-2.0
"""The published rules for what a network gets to see: the size of its input, and how an image is brought to it.

Short side: DepthAnything/Depth-Anything-V2, `util/transform.py`. Long side: ByteDance-Seed/Depth-Anything-3,
`utils/io/input_processor.py`. Square: apple/ml-depth-pro, `depth_pro.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from ..models import Model
from ..models.zoo import LONG_SIDE, SHORT_SIDE, SQUARE

MAX_ASPECT = 8.0
_DARKEST, _GREY = 0.2, 0.42  # mean brightness: of images that are left alone, and what darker ones get


class ImageError(ValueError):
    """An image that cannot be given to a network; the message says what was expected."""


def network_size(
    width: int, height: int, input_size: int, patch: int, max_tokens: int = 0, resize: str = SHORT_SIDE
) -> tuple[int, int]:
    """(width, height) of the network's input for an image of `width` x `height`.

    Args:
        input_size: pixels. Short side: that side becomes `input_size`, the aspect ratio is kept, and both sides are rounded
            (half to even) to multiples of the patch, but never below `input_size`: 640 x 480 at 518 and patch 14 gives
            686 x 518. Long side: that side becomes `input_size`, and both are rounded to multiples of the patch: 504 x 378.
            Square: both sides.
        max_tokens: the most patches that a network's input may have, for the sake of memory and time: if there would be more,
            `input_size` is lowered by whole patches until there are not; 0: no bound. Not of squares.

    Raises:
        ImageError: an empty image, or one so long that the network would need gigabytes for it.
    """
    if width < 1 or height < 1:
        raise ImageError(f"the image is empty ({width}x{height})")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(f"the image is {width}x{height}: sides that differ by more than {MAX_ASPECT:g} times are refused")
    if resize == SQUARE:
        return input_size, input_size
    size = (_by_long_side if resize == LONG_SIDE else _by_short_side)(width, height, input_size, patch)
    if max_tokens and size[0] * size[1] > max_tokens * patch**2 and input_size > patch:
        return network_size(width, height, input_size - patch, patch, max_tokens, resize)
    return size


def _by_short_side(width: int, height: int, input_size: int, patch: int) -> tuple[int, int]:
    scale = max(input_size / width, input_size / height)

    def side(length: int) -> int:
        rounded = round(scale * length / patch) * patch
        return rounded if rounded >= input_size else math.ceil(scale * length / patch) * patch

    return side(width), side(height)


def _by_long_side(width: int, height: int, input_size: int, patch: int) -> tuple[int, int]:
    return tuple(max(patch, (side + patch // 2) // patch * patch) for side in _fitted(width, height, input_size))


def _fitted(width: int, height: int, long_side: int) -> tuple[int, int]:
    """The size of an image that is brought to its long side, before it is brought to whole patches."""
    scale = long_side / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def normalize_exposure(rgb: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) uint8 so dark that networks lose their way, with a gamma that gives it a common brightness.

    Any other is returned as it is: there, a gamma does more harm than good (`docs/benchmarks.md`).
    """
    mean = float(rgb[::4, ::4].mean()) / 255
    if mean >= _DARKEST:
        return rgb
    gamma = math.log(_GREY) / math.log(max(mean, 0.02))
    return cv2.LUT(rgb, (np.linspace(0, 1, 256) ** gamma * 255).round().astype(np.uint8))


def preprocess(images: Sequence[np.ndarray], size: tuple[int, int], device: torch.device, model: Model) -> torch.Tensor:
    """Resize and normalise as a model's reference does.

    Args:
        images: (H, W, 3) uint8 RGB each; they may differ in size.
        size: (width, height) from `network_size`.

    Returns:
        (B, 3, height, width) float32, contiguous, on the device; within 3e-4 of the reference's computation.
    """
    batch = torch.empty((len(images), 3, size[1], size[0]), device=device)
    scale, offset = _constants(model.mean, model.std, str(device))
    for image, out in zip(images, batch):
        torch.mul(_resized(image, size, device, model.resize), scale, out=out).sub_(offset)
    return batch


def _resized(image: np.ndarray, size: tuple[int, int], device: torch.device, resize: str) -> torch.Tensor:
    """(3, height, width) float32 or uint8 in grey levels. It goes to another device once, as bytes."""
    if resize == LONG_SIDE:
        image = _in_two_steps(image, size)
    same = (image.shape[1], image.shape[0]) == size
    if device.type == "cpu":
        image, how = image.astype(np.float32), cv2.INTER_LINEAR if resize == SQUARE else cv2.INTER_CUBIC
        return torch.from_numpy(image if same else cv2.resize(image, size, interpolation=how)).permute(2, 0, 1)
    staged = torch.empty(image.shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
    staged.numpy()[...] = image
    uploaded = staged.to(device, non_blocking=True).permute(2, 0, 1)
    return uploaded if same else resize_on_device(uploaded, size, "bilinear" if resize == SQUARE else "bicubic")


def _in_two_steps(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(height, width, 3) uint8: to the long side, then to whole patches; by area where that makes it smaller, else bicubic."""
    for width, height in (_fitted(image.shape[1], image.shape[0], max(size)), size):
        grows = width > image.shape[1] or height > image.shape[0]
        if (width, height) != (image.shape[1], image.shape[0]):
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC if grows else cv2.INTER_AREA)
    return image


def resize_on_device(image: torch.Tensor, size: tuple[int, int], mode: str = "bicubic") -> torch.Tensor:
    """(3, H, W) -> (3, height, width) float32, by the kernel (bicubic: a = -0.75), pixel centres and borders of OpenCV's."""
    return F.interpolate(image[None].float(), size=size[::-1], mode=mode, align_corners=False)[0]


@lru_cache(maxsize=8)
def _constants(mean: tuple, deviation: tuple, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    mean, deviation = torch.tensor(mean), torch.tensor(deviation)
    return tuple(part[:, None, None].to(device) for part in (1 / (255 * deviation), mean / deviation))
