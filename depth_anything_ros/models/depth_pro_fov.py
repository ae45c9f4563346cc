# SPDX-License-Identifier: Apache-2.0
"""The part of Depth Pro that tells the camera's field of view from the image (`src/depth_pro/network/fov.py`)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .depth_pro_parts import build_vit
from .network import token_grid
from .zoo import Encoder


class FieldOfView(nn.Module):
    """A third ViT on the small image, joined with the decoder's coarsest map -> one angle.

    Its last convolution spans the token grid of training, so that this part works at the size of training, whatever the
    size of the image: only the decoder's map has to be resampled.
    """

    def __init__(self, encoder: Encoder):
        super().__init__()
        f, self.size, self.patch = encoder.features, encoder.train_size, encoder.patch
        self.encoder = nn.Sequential(build_vit(encoder), nn.Linear(encoder.width, f // 2))
        self.downsample = nn.Sequential(nn.Conv2d(f, f // 2, 3, stride=2, padding=1), nn.ReLU(inplace=True))
        self.head = nn.Sequential(
            nn.Conv2d(f // 2, f // 4, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(f // 4, f // 8, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(f // 8, 1, self.size[0] // self.patch // 4),
        )

    def forward(self, images: torch.Tensor, coarsest: torch.Tensor) -> torch.Tensor:
        """The horizontal field of view of images that are as wide as the camera's.

        Args:
            images: (B, 3, S, S) float32, as of `DepthPro.forward`.
            coarsest: (B, features, s, s), the decoder's second map.

        Returns:
            (B,) degrees.
        """
        small = F.interpolate(images, size=self.size, mode="bilinear", align_corners=False).to(coarsest.dtype)
        grid = token_grid(self.encoder(small)[:, 1:], self.size, self.patch)
        context = self.downsample(coarsest)
        if context.shape != grid.shape:
            context = F.interpolate(context, size=grid.shape[-2:], mode="bilinear", align_corners=False)
        last = self.head[-1]
        return last(self.head[:-1](grid + context).to(last.weight.dtype)).flatten()
