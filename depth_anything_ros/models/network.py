# SPDX-License-Identifier: Apache-2.0
"""A depth network: ViT encoder, DPT head, and the activation that decides what the numbers mean."""

from __future__ import annotations

import copy

import torch
from torch import nn

from .dpt import DPTHead
from .errors import ModelError
from .zoo import METRIC, Encoder, Model


class DepthNetwork(nn.Module):
    """One of the Depth Anything networks; `kind` says what `forward` returns.

    Attributes:
        kind: "relative" (inverse depth of unknown scale and shift, near = large) or "metric" (metres along z).
        patch: both sides of every input are a multiple of it, in pixels.
    """

    def __init__(self, model: Model, encoder: Encoder, taps: tuple[int, ...]):
        # timm takes two seconds to import, which nobody has to wait for who only plays a camera or mistypes a parameter.
        from .backbone import ConvStem, build_backbone

        super().__init__()
        self.kind, self.max_depth, self.taps, self.patch = model.kind, model.max_depth, list(taps), encoder.patch
        self.stem = ConvStem((*encoder.stem, encoder.width)) if encoder.stem else None
        self.pretrained = build_backbone(encoder)
        self.depth_head = DPTHead(encoder.width, encoder.features, encoder.out_channels, encoder.stem)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Depth or inverse depth at the resolution of the input.

        Args:
            images: (B, 3, h, w) float, ImageNet-normalised RGB, h and w multiples of `patch`.

        Returns:
            (B, h, w) float32: metres if `kind` is "metric", else unitless inverse depth >= 0.
        """
        size, levels = tuple(images.shape[-2:]), self.levels(images.to(self.pretrained.pos_embed.dtype))
        values = self.depth_head(levels, size)
        if self.kind == METRIC:
            return torch.sigmoid(values) * self.max_depth
        return torch.relu(values)

    def lowered(self, dtype: torch.dtype) -> DepthNetwork:
        """A copy that computes in `dtype`, but for its last two convolutions and the activation.

        Those stay in float32: half precision there shows as steps in depth, and as black pixels (inf).
        """
        network = copy.deepcopy(self).to(dtype)
        network.depth_head.scratch.output_conv2.load_state_dict(self.depth_head.scratch.output_conv2.state_dict(), assign=True)
        return network.requires_grad_(False).eval()

    def at_size(self, height: int, width: int) -> DepthNetwork:
        """The same network, sharing its weights, for inputs of one size only: their position embedding is computed once."""
        self._check(height, width)
        network = copy.deepcopy(self, {id(tensor): tensor for tensor in (*self.parameters(), *self.buffers())})
        network.pretrained.fix_grid(height // self.patch, width // self.patch)
        return network

    def levels(self, images: torch.Tensor) -> list[torch.Tensor]:
        """What the head is given: four maps (B, C, h, w), fine ones first. Arguments and errors as of `features`."""
        self._check(*images.shape[-2:])
        *fine, last = self.stem(images) if self.stem else [images]
        return fine + [token_grid(patch, tuple(images.shape[-2:]), self.patch) for patch, _ in self._taps(last)]

    def features(self, images: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The levels of the ViT that the head uses, each after the final LayerNorm.

        Args:
            images: as in `forward`.

        Returns:
            Four pairs (two behind a convolutional stem) of patch tokens (B, N, C), row-major, and class token (B, C).
            `token_grid` lays them out in 2-D.

        Raises:
            ModelError: a side of the image is not a multiple of the patch.
        """
        self._check(*images.shape[-2:])
        return self._taps(self.stem(images)[-1] if self.stem else images)

    def _check(self, height: int, width: int) -> None:
        if height % self.patch or width % self.patch:
            raise ModelError(f"the network takes sides that are multiples of {self.patch}, got {width}x{height}")

    def _taps(self, images: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        levels = self.pretrained.forward_intermediates(
            images, indices=self.taps, norm=True, output_fmt="NLC", return_prefix_tokens=True, intermediates_only=True
        )
        return [(patch, prefix[:, 0]) for patch, prefix in levels]


def token_grid(tokens: torch.Tensor, size: tuple[int, int], patch: int) -> torch.Tensor:
    """Patch tokens (B, N, C) of an input of (height, width) pixels -> (B, C, height / patch, width / patch)."""
    return tokens.transpose(1, 2).unflatten(2, (size[0] // patch, size[1] // patch))
