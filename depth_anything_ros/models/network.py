# SPDX-License-Identifier: Apache-2.0
"""A depth network: ViT encoder, DPT head, and the activation that decides what the numbers mean."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import nn

from .dpt import DPTHead
from .errors import ModelError
from .zoo import DEPTH_ANYTHING_3, METRIC, Encoder, Model

_SKY = 0.3  # of the second output of Depth Anything 3: from there on a pixel shows the sky (`model/da3.py`)


@dataclass(frozen=True)
class Examination:
    """All that a network can say of a batch.

    Attributes:
        values: what `forward` returns.
        features: (B, rows, columns, C): the ViT's last patch tokens after its final LayerNorm, as they lie in the image; None:
            nobody asked.
        class_token: (B, C) of the same layer; None: this ViT has none.
        fov: (B,) degrees, horizontal, as the network sees it; None: this network does not say.
    """

    values: torch.Tensor
    features: torch.Tensor | None = None
    class_token: torch.Tensor | None = None
    fov: torch.Tensor | None = None


class DepthNetwork(nn.Module):
    """One of the Depth Anything networks, or the same head behind another ViT; `kind` says what `forward` returns.

    Attributes:
        model, encoder, taps: what it is made of: see `zoo`.
        kind: of the model.
        patch: both sides of every input are a multiple of it, in pixels.
    """

    def __init__(self, model: Model, encoder: Encoder, taps: tuple[int, ...]):
        # timm takes two seconds to import, which nobody has to wait for who only plays a camera or mistypes a parameter.
        from .backbone import ConvStem, build_backbone

        super().__init__()
        self.model, self.encoder, self.taps = model, encoder, list(taps)
        self.kind, self.patch = model.kind, encoder.patch
        self.stem = ConvStem((*encoder.stem, encoder.width)) if encoder.stem else None
        modern = model.architecture == DEPTH_ANYTHING_3
        if encoder.timm:
            from .timm_encoder import TimmEncoder

            self.pretrained = TimmEncoder(encoder.timm, encoder.train_size, tuple(taps))
            if self.pretrained.unit != encoder.patch:
                raise ModelError(f"{encoder.timm} takes multiples of {self.pretrained.unit}, not of {encoder.patch}")
            widths, strides = self.pretrained.widths, self.pretrained.strides
        else:
            self.pretrained = build_backbone(encoder, norm_eps=1e-5 if modern else 1e-6)
            widths = (*(encoder.stem or [encoder.width] * 2), encoder.width, encoder.width)
            strides = (4, 8, 16, 16) if encoder.stem else (encoder.patch,) * 4
        self.depth_head = DPTHead(widths, strides, encoder.features, encoder.out_channels, sky=modern)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Depth or inverse depth at the resolution of the input.

        Args:
            images: (B, 3, h, w) float RGB, normalised by the model's mean and std, h and w multiples of `patch`.

        Returns:
            (B, h, w) float32: metres if `kind` is "metric", else inverse depth >= 0: unitless if it is "relative", and to be
            multiplied by the ratio of focal lengths, canonical to real, if it is "canonical".
        """
        return self._values(self.levels(images), images)

    def _values(self, levels: list[torch.Tensor], images: torch.Tensor) -> torch.Tensor:
        dtype = self.depth_head.projects[0].weight.dtype
        out = self.depth_head([level.to(dtype) for level in levels], tuple(images.shape[-2:]))
        if self.model.architecture == DEPTH_ANYTHING_3:  # exp(-x) is 1 / exp(x); the sky is infinitely far
            return torch.where(out[:, 1] < _SKY, torch.exp(-out[:, 0]), 0.0)
        if self.kind == METRIC:
            return torch.sigmoid(out[:, 0]) * self.model.max_depth
        return torch.relu(out[:, 0])

    def examine(self, images: torch.Tensor) -> Examination:
        """Everything it can say, in one pass; arguments and errors as of `forward` and `features`."""
        fine, taps = self._levels(images)
        maps = [self._map(i, tokens, images) for i, (tokens, _) in enumerate(taps)]
        class_token = taps[-1][1]
        return Examination(
            self._values(fine + maps, images),
            maps[-1].permute(0, 2, 3, 1).float(),
            None if class_token is None else class_token.float(),
        )

    def lowered(self, dtype: torch.dtype) -> DepthNetwork:
        """A copy that computes in `dtype`, but for its last two convolutions and the activation.

        Those stay in float32: half precision there shows as steps in depth, and as black pixels (inf). So does all of the head
        of Depth Anything 3, whose reference never computes it in less (`model/da3.py`).
        """
        network = copy.deepcopy(self).to(dtype)
        exact = network.depth_head if self.model.architecture == DEPTH_ANYTHING_3 else network.depth_head.scratch.output_conv2
        source = self.depth_head if exact is network.depth_head else self.depth_head.scratch.output_conv2
        exact.load_state_dict(source.state_dict(), assign=True)
        return network.requires_grad_(False).eval()

    def at_size(self, height: int, width: int) -> DepthNetwork:
        """The same network, sharing its weights, for inputs of one size only: their position embedding is computed once."""
        self._check(height, width)
        network = copy.deepcopy(self, {id(tensor): tensor for tensor in (*self.parameters(), *self.buffers())})
        if self.encoder.timm:
            network.pretrained = network.pretrained.at_size(height, width)
            network.encoder = replace(self.encoder, train_size=(height, width))
        else:
            network.pretrained.fix_grid(height // self.patch, width // self.patch)
        return network

    def levels(self, images: torch.Tensor) -> list[torch.Tensor]:
        """What the head is given: four maps (B, C, h, w), fine ones first. Arguments and errors as of `features`."""
        fine, taps = self._levels(images)
        return fine + [self._map(i, tokens, images) for i, (tokens, _) in enumerate(taps)]

    def features(self, images: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        """The levels of the ViT that the head uses, each after the final LayerNorm.

        Args:
            images: as in `forward`.

        Returns:
            Four pairs (two behind a convolutional stem) of patch tokens (B, N, C), row-major, and class token (B, C), or None
            where the ViT has none. `token_grid` lays tokens out in 2-D.

        Raises:
            ModelError: a side of the image is not a multiple of the patch.
        """
        return self._levels(images)[1]

    def _check(self, height: int, width: int) -> None:
        if height % self.patch or width % self.patch:
            raise ModelError(f"the network takes sides that are multiples of {self.patch}, got {width}x{height}")

    def _levels(self, images: torch.Tensor):
        """Maps of the convolutional stem, if there is one, and the pairs of `features`."""
        self._check(*images.shape[-2:])
        images = images.to(next(self.pretrained.parameters()).dtype)
        *fine, last = self.stem(images) if self.stem else [images]
        if self.encoder.timm:
            return fine, self.pretrained.taps_of(last)
        levels = self.pretrained.forward_intermediates(
            last, indices=self.taps, norm=True, output_fmt="NLC", return_prefix_tokens=True, intermediates_only=True
        )
        return fine, [(patch, prefix[:, 0]) for patch, prefix in levels]

    def _map(self, number: int, tokens: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Tokens of a tap -> (B, C, h, w)."""
        size = tuple(images.shape[-2:])
        if not self.encoder.timm:
            return token_grid(tokens, size, self.patch)
        return tokens.transpose(1, 2).unflatten(2, self.pretrained.grid(number, *size))


def token_grid(tokens: torch.Tensor, size: tuple[int, int], patch: int) -> torch.Tensor:
    """Patch tokens (B, N, C) of an input of (height, width) pixels -> (B, C, height / patch, width / patch)."""
    return tokens.transpose(1, 2).unflatten(2, (size[0] // patch, size[1] // patch))
