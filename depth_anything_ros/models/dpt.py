# SPDX-License-Identifier: Apache-2.0
"""The dense prediction head of Depth Anything (DPT, Ranftl et al., ICCV 2021).

Parameter names and the order of operations follow the published checkpoints (DepthAnything/Depth-Anything-V2,
`depth_anything_v2/dpt.py` and `util/blocks.py`), so that their state dicts load strictly.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .errors import ModelError


class ResidualConvUnit(nn.Module):
    """Two 3x3 convolutions, each after a ReLU, around a skip connection."""

    def __init__(self, features: int):
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, features, h, w) -> the same shape."""
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class FusionBlock(nn.Module):
    """Adds one level of the pyramid to the running sum and enlarges the result."""

    def __init__(self, features: int, lateral: bool = True):
        super().__init__()
        self.out_conv = nn.Conv2d(features, features, 1)
        if lateral:
            self.resConfUnit1 = ResidualConvUnit(features)
        self.resConfUnit2 = ResidualConvUnit(features)

    def forward(self, path: torch.Tensor, lateral: torch.Tensor | None, size: tuple[int, int]) -> torch.Tensor:
        """`path` (B, features, h, w), enlarged to `size` after `lateral` (B, features, h, w) has been added."""
        if lateral is not None:
            path = path + self.resConfUnit1(lateral)
        # Published: enlarged first. A 1x1 convolution and a mean of neighbours commute, and this way it is 4 times cheaper.
        return F.interpolate(self.out_conv(self.resConfUnit2(path)), size=size, mode="bilinear", align_corners=True)


class Scratch(nn.Module):
    """The layers that the checkpoints keep under `scratch`: laterals, fusion blocks, output convolutions."""

    def __init__(self, out_channels: tuple[int, int, int, int], features: int, sky: bool):
        super().__init__()
        for level, channels in enumerate(out_channels, start=1):
            self.add_module(f"layer{level}_rn", nn.Conv2d(channels, features, 3, padding=1, bias=False))
            # The coarsest block has no lateral; Depth Anything 1 and 2 keep the unit for one in their files all the same.
            self.add_module(f"refinenet{level}", FusionBlock(features, lateral=level < 4 or not sky))
        self.output_conv1 = nn.Conv2d(features, features // 2, 3, padding=1)
        self.output_conv2 = _last_layers(features // 2)
        if sky:
            self.sky_output_conv2 = _last_layers(features // 2)


def _last_layers(channels: int) -> nn.Sequential:
    """To one value; its activation has no parameters and belongs to the network: see network.py."""
    return nn.Sequential(nn.Conv2d(channels, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 1, 1))


class DPTHead(nn.Module):
    """Four levels of the encoder -> one value per pixel, before the last activation.

    Args:
        widths: channels of the levels, fine ones first.
        strides: pixels of the network's input to a cell of each level; they are brought to p/4, p/2, p and 2p, where p is the
            stride of the third.
        features: channels of the fusion blocks.
        out_channels: channels of the levels after their projection.
        sky: whether there is a second value, which is large where the sky is (Depth Anything 3, `model/dpt.py`).
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        strides: tuple[int, ...],
        features: int,
        out_channels: tuple[int, int, int, int],
        sky: bool = False,
    ):
        super().__init__()
        self.projects = nn.ModuleList(nn.Conv2d(before, after, 1) for before, after in zip(widths, out_channels))
        wanted = [part * strides[2] for part in (0.25, 0.5, 1, 2)]
        self.resize_layers = nn.ModuleList(
            _resize(channels, stride / goal) for channels, stride, goal in zip(out_channels, strides, wanted)
        )
        self.scratch = Scratch(out_channels, features, sky)

    def forward(self, levels: list[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
        """Four levels (B, channels, h, w) and the network input's (height, width) -> (B, 1, height, width), or 2 with sky."""
        scratch = self.scratch
        # 1. Reassemble: each level to its own number of channels and its own resolution (4, 2, 1 and 1/2 of the grid).
        pyramid = [resize(project(x)) for x, project, resize in zip(levels, self.projects, self.resize_layers)]
        # 2. Laterals: every level to the same number of channels.
        fine, middle, coarse, coarsest = (getattr(scratch, f"layer{i}_rn")(x) for i, x in enumerate(pyramid, start=1))
        # 3. Fuse from coarse to fine; each step ends at the size of the next finer level, the last one at twice its own.
        path = scratch.refinenet4(coarsest, None, coarse.shape[-2:])
        path = scratch.refinenet3(path, coarse, middle.shape[-2:])
        path = scratch.refinenet2(path, middle, fine.shape[-2:])
        path = scratch.refinenet1(path, fine, (2 * fine.shape[-2], 2 * fine.shape[-1]))
        # 4. To the resolution of the network's input, and to one channel.
        path = F.interpolate(scratch.output_conv1(path), size=size, mode="bilinear", align_corners=True)
        path = path.to(scratch.output_conv2[0].weight.dtype)
        values = scratch.output_conv2(path)
        return torch.cat([values, scratch.sky_output_conv2(path)], 1) if hasattr(scratch, "sky_output_conv2") else values


def _resize(channels: int, factor: float) -> nn.Module:
    """A layer that enlarges a map by 1/2, 1 or a larger whole number."""
    if factor == 0.5:
        return nn.Conv2d(channels, channels, 3, stride=2, padding=1)
    if factor == 1:
        return nn.Identity()
    if factor < 1 or factor % 1:
        raise ModelError(f"a level of the encoder would have to be enlarged {factor:g} times, expected 1/2, 1, 2, 3 ...")
    return nn.ConvTranspose2d(channels, channels, int(factor), stride=int(factor))
