# SPDX-License-Identifier: Apache-2.0
"""The ViT encoder: timm's VisionTransformer with the position-embedding rule that DINOv2 checkpoints were trained with."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from timm.layers import SwiGLUPacked
from timm.models.resnet import BasicBlock, downsample_conv
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from .zoo import Encoder


class DinoV2(VisionTransformer):
    """timm's ViT, differing only in how the position embedding meets images of another size.

    DINOv2 enlarges the grid by 0.1 before it divides (`interpolate_offset`) and uses the resulting ratio as the
    sampling step, without antialiasing: facebookresearch/dinov2, `vision_transformer.py`, `interpolate_pos_encoding`.
    timm resamples to the exact size with antialiasing, which is off by several per cent of the output's range on every
    image that is not square.
    """

    def _pos_embed(self, x: torch.Tensor) -> torch.Tensor:
        """(B, h, w, C) patches -> (B, 1 + h * w, C) tokens, class token first."""
        batch, height, width, channels = x.shape
        tokens = torch.cat([self.cls_token.expand(batch, -1, -1), x.reshape(batch, -1, channels)], dim=1)
        embed = resample_pos_embed(self.pos_embed, self.patch_embed.grid_size, (height, width))
        return self.pos_drop(tokens + embed.to(tokens.dtype))

    def fix_grid(self, height: int, width: int) -> None:
        """From now on take only images of this many patches: nothing is resampled at run time, and nothing needs exporting."""
        embed = resample_pos_embed(self.pos_embed, self.patch_embed.grid_size, (height, width))
        self.pos_embed = nn.Parameter(embed, requires_grad=False)
        self.patch_embed.grid_size = (height, width)


def resample_pos_embed(embed: torch.Tensor, old: tuple[int, int], new: tuple[int, int]) -> torch.Tensor:
    """DINOv2's rule: (1, 1 + old_h * old_w, C) -> (1, 1 + new_h * new_w, C); computed in float32."""
    if tuple(old) == tuple(new):
        return embed
    token, grid = embed[:, :1], embed[:, 1:]
    grid = grid.reshape(1, *old, -1).permute(0, 3, 1, 2).float()
    scale = ((new[0] + 0.1) / old[0], (new[1] + 0.1) / old[1])
    grid = F.interpolate(grid, scale_factor=scale, mode="bicubic", antialias=False)
    return torch.cat([token, grid.flatten(2).transpose(1, 2).to(token.dtype)], dim=1)


class ConvStem(nn.Module):
    """The convolutional first half of a hybrid ViT: residual stages at 1/4, 1/8 and 1/16 of the image.

    As in DPT-Hybrid (Ranftl et al., ICCV 2021) the head takes its two fine levels from here and the ViT works on the
    last: edges need not go through tokens, so that hours of training do what plain patches need days for.
    """

    def __init__(self, widths: tuple[int, int, int]):
        super().__init__()
        first = widths[0] // 2
        self.first = nn.Sequential(
            nn.Conv2d(3, first, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(first), nn.ReLU(inplace=True)
        )
        self.stages = nn.ModuleList(_stage(before, after) for before, after in zip((first, *widths), widths))

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """(B, 3, h, w) -> three maps (B, widths[i], h / s, w / s) with s = 4, 8, 16."""
        maps = [self.first(images)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]


def _stage(before: int, after: int) -> nn.Sequential:
    """Two residual blocks of which the first halves the resolution."""
    shortcut = downsample_conv(before, after, kernel_size=1, stride=2)
    return nn.Sequential(BasicBlock(before, after, stride=2, downsample=shortcut), BasicBlock(after, after))


def vit_options(encoder: Encoder) -> dict:
    """What timm's ViT is told in order to be one of DINOv2's, whatever the size of its images."""
    return {
        "embed_dim": encoder.width,
        "depth": encoder.depth,
        "num_heads": encoder.heads,
        "init_values": 1.0,
        "norm_layer": partial(nn.LayerNorm, eps=1e-6),
        "num_classes": 0,
        "global_pool": "",
        "dynamic_img_size": True,
    }


def build_backbone(encoder: Encoder, norm_eps: float = 1e-6) -> DinoV2:
    """A backbone with the names and shapes of the published DINOv2 state dicts; with a stem it takes the stem's last map.

    Args:
        norm_eps: of the final LayerNorm; those of the blocks have 1e-6.
    """
    options = {}
    if encoder.swiglu:  # hidden size 4096, as packed gate and value: the published ViT-g
        options.update(mlp_ratio=2 * 8 / 3, mlp_layer=SwiGLUPacked, act_layer=nn.SiLU)
    height, width = encoder.train_size
    if encoder.stem:
        options.update(img_size=(height // encoder.patch, width // encoder.patch), patch_size=1, in_chans=encoder.width)
    else:
        options.update(img_size=(height, width), patch_size=encoder.patch)
    backbone = DinoV2(**vit_options(encoder), **options)
    backbone.norm.eps = norm_eps
    return backbone
