# SPDX-License-Identifier: Apache-2.0
"""The ViT encoder: timm's VisionTransformer with the position-embedding rule that DINOv2 checkpoints were trained with."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from timm.layers import SwiGLUPacked
from timm.layers.hybrid_embed import HybridEmbed
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


def resample_pos_embed(embed: torch.Tensor, old: tuple[int, int], new: tuple[int, int]) -> torch.Tensor:
    """DINOv2's rule: (1, 1 + old_h * old_w, C) -> (1, 1 + new_h * new_w, C); computed in float32."""
    if tuple(old) == tuple(new):
        return embed
    token, grid = embed[:, :1], embed[:, 1:]
    grid = grid.reshape(1, *old, -1).permute(0, 3, 1, 2).float()
    scale = ((new[0] + 0.1) / old[0], (new[1] + 0.1) / old[1])
    grid = F.interpolate(grid, scale_factor=scale, mode="bicubic", antialias=False)
    return torch.cat([token, grid.flatten(2).transpose(1, 2).to(token.dtype)], dim=1)


def build_backbone(encoder: Encoder) -> DinoV2:
    """A backbone with the names and shapes of the published DINOv2 state dicts (`conv_stem`: of our own)."""
    options = {}
    if encoder.swiglu:  # hidden size 4096, as packed gate and value: the published ViT-g
        options.update(mlp_ratio=2 * 8 / 3, mlp_layer=SwiGLUPacked, act_layer=nn.SiLU)
    if encoder.conv_stem:
        options.update(embed_layer=partial(HybridEmbed, backbone=_conv_stem(encoder), proj=False), patch_size=1)
    else:
        options.update(patch_size=encoder.patch)
    return DinoV2(
        img_size=encoder.train_size,
        embed_dim=encoder.width,
        depth=encoder.depth,
        num_heads=encoder.heads,
        init_values=1.0,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        num_classes=0,
        global_pool="",
        dynamic_img_size=True,
        **options,
    )


def _conv_stem(encoder: Encoder) -> nn.Module:
    """Four stride-2 convolutions to 1/16 of the image: learns in an hour what plain patches need days for."""
    widths = [encoder.width // 8, encoder.width // 4, encoder.width // 2]
    layers: list[nn.Module] = []
    for before, after in zip([3, *widths], widths):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.GELU()]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], encoder.width, 3, stride=2, padding=1))
