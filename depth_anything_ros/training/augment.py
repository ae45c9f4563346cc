# SPDX-License-Identifier: Apache-2.0
"""What one pair becomes in another draw: mirrored, in other colours, and for relative networks a part of it, enlarged.

A metric network does not know its camera. It learns the robot's own from what metres look like in it: focal length, height
and tilt. A crop or another scale would be another camera with the same metres, so it only gets those that leave these alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

_LUMA = np.array((0.299, 0.587, 0.114), np.float32)  # ITU-R BT.601


@dataclass(frozen=True)
class Augmentation:
    """How much.

    Attributes:
        mirror: half of the draws are mirrored.
        colour: largest relative change of brightness, contrast, saturation, gamma, and of each channel.
        crop: smallest share of the image's sides that is seen; 1: always all of it, which metric networks need.
    """

    mirror: bool = True
    colour: float = 0.2
    crop: float = 1.0


def augment(rgb: np.ndarray, depth: np.ndarray, how: Augmentation, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Another view of a pair (H, W, 3) uint8, (h, w) float32, of the same aspect ratio; the arguments stay as they are."""
    if how.crop < 1:
        share, along, down = rng.uniform(how.crop, 1), rng.random(), rng.random()
        rgb, depth = (_part(each, share, along, down) for each in (rgb, depth))
    if how.mirror and rng.random() < 0.5:
        rgb, depth = rgb[:, ::-1], depth[:, ::-1]
    if how.colour:
        rgb = _recoloured(rgb, how.colour, rng)
    return np.ascontiguousarray(rgb), np.ascontiguousarray(depth)


def _part(image: np.ndarray, share: float, along: float, down: float) -> np.ndarray:
    """A window of `share` of both sides; `along` and `down` from 0 to 1 say where."""
    height, width = (max(1, round(side * share)) for side in image.shape[:2])
    top, left = round(down * (image.shape[0] - height)), round(along * (image.shape[1] - width))
    return image[top : top + height, left : left + width]


def _recoloured(rgb: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Gamma, brightness and the channels' gains as one table per channel; then contrast and saturation as one matrix."""
    gamma, gains = _factor(rng, strength), _factor(rng, strength) * _factor(rng, strength / 2, 3)
    contrast, saturation = _factor(rng, strength), _factor(rng, strength)
    levels = np.linspace(0, 1, 256, dtype=np.float32)[:, None] ** gamma * gains * 255
    image = cv2.LUT(rgb, np.clip(levels, 0, 255).astype(np.uint8)[None])
    mix = contrast * (saturation * np.eye(3, dtype=np.float32) + (1 - saturation) * _LUMA[None])
    middle = (1 - contrast) * float(image[::4, ::4].mean())
    return cv2.transform(image, np.hstack([mix, np.full((3, 1), middle)]).astype(np.float32))


def _factor(rng: np.random.Generator, strength: float, count: int | None = None):
    """Around 1, as often larger as smaller."""
    return np.exp(rng.uniform(-1, 1, count) * np.log1p(strength))
