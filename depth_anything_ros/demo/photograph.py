# SPDX-License-Identifier: Apache-2.0
"""What a cheap camera makes of a perfect image: automatic exposure, gamma, colour cast, loss of colour, blur and noise."""

from __future__ import annotations

import torch
import torch.nn.functional as F

_GREY = 0.42  # mean brightness that cameras expose for
_BLUR = 0.003  # largest deviation of the blur, in image widths: 2 pixels at 640


def photograph(images: torch.Tensor, generator: torch.Generator | None = None, one_camera: bool = False) -> torch.Tensor:
    """Each image as a camera of its own would have taken it.

    Args:
        images: (B, 3, H, W) float in [0, 1].
        generator: where the cameras' faults come from; by default torch's own.
        one_camera: the images are one camera's: only the noise differs between them.

    Returns:
        The same shape, in [0, 1].
    """
    cameras, width = 1 if one_camera else len(images), images.shape[-1]

    def uniform(low: float, high: float, channels: int = 1) -> torch.Tensor:
        drawn = torch.rand(cameras, channels, 1, 1, generator=generator, device=images.device)
        return low + (high - low) * drawn

    deviation = (uniform(-1, 1) * _BLUR * width).clamp_min(0.0)  # half of them are sharp
    images = _blur(images, deviation[:, 0, 0, 0].expand(len(images)))
    images = images.clamp_min(1e-4) ** uniform(0.7, 1.4)
    exposure = (_GREY / images.mean((1, 2, 3), keepdim=True)).clamp(0.5, 4.0)  # automatic, and then somewhat off
    images = images * (exposure[:1] if one_camera else exposure) * uniform(0.7, 1.3) * uniform(0.85, 1.15, 3)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * uniform(0.0, 1.2)
    noise = torch.randn(images.shape, generator=generator, device=images.device)
    return (images + noise * uniform(0.0, 0.04)).clamp(0, 1)


def _blur(images: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
    """A Gaussian blur of each image's own deviation (B,) in pixels."""
    count, channels, height, width = images.shape
    radius = max(1, round(3 * _BLUR * width))
    at = torch.arange(-radius, radius + 1, device=images.device)
    kernel = torch.exp(-0.5 * (at / deviation.clamp_min(1e-3)[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)[:, None]
    flat = F.pad(images.reshape(1, count * channels, height, width), (radius,) * 4, mode="replicate")
    flat = F.conv2d(flat, kernel[:, :, None, :], groups=count * channels)
    return F.conv2d(flat, kernel[:, :, :, None], groups=count * channels).view_as(images)
