# SPDX-License-Identifier: Apache-2.0
"""Depth Pro (apple/ml-depth-pro; Bochkovskii et al., ICLR 2025): sharp inverse depth, and the field of view, from one image.

Metres are not this module's: the inverse of metres is the canonical inverse depth times the image's width over its focal
length, both in pixels of the same image (`src/depth_pro/depth_pro.py`, `infer`).
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from .depth_pro_fov import FieldOfView
from .depth_pro_parts import TILE_TOKENS, Decoder, PyramidEncoder, free_memory, reduced, tile_batch_for
from .errors import ModelError
from .network import Examination, token_grid
from .zoo import Encoder, Model


class DepthPro(nn.Module):
    """The network of the published `depth_pro.pt`, whose state dict it loads strictly.

    Trained at 1536 x 1536. It takes other squares, of smaller or larger tiles, at an accuracy that nobody has measured.

    Attributes:
        model, kind: the row of the table, and what it says of the values.
        patch: the side of every input is a multiple of it, in pixels (512).
        tile_batch: how many of the 35 B tiles of a batch go through the patch encoder at once; 0: all.
    """

    def __init__(self, model: Model, encoder: Encoder, taps: tuple[int, ...]):
        super().__init__()
        self.model, self.kind, self.tile_batch = model, model.kind, 0
        self.patch = 4 * TILE_TOKENS * encoder.patch
        self.encoder = PyramidEncoder(encoder, taps)
        self.decoder = Decoder(encoder.out_channels, encoder.features)
        half = encoder.features // 2
        self.head = nn.Sequential(
            nn.Conv2d(encoder.features, half, 3, padding=1),
            nn.ConvTranspose2d(half, half, 2, stride=2),
            nn.Conv2d(half, 32, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 1, 1),
            nn.ReLU(inplace=True),
        )
        self.fov = FieldOfView(encoder)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Canonical inverse depth at the resolution of the input.

        Args:
            images: (B, 3, S, S) float32, RGB in [-1, 1], S a multiple of `patch`. The whole image of the camera, squeezed
                into the square whatever its aspect ratio.

        Returns:
            (B, S, S) float32 >= 0: 1 / m, if the focal length were the image's width.

        Raises:
            ModelError: images of another shape.
        """
        return self._perceive(images)[0]

    def examine(self, images: torch.Tensor) -> Examination:
        """Everything it can say, in one pass; arguments and errors as of `forward`."""
        values, coarsest, tokens = self._perceive(images)
        side = images.shape[-1] // 4
        grid = token_grid(tokens[:, 1:], (side, side), self.encoder.patch).permute(0, 2, 3, 1)
        return Examination(values, grid.float(), tokens[:, 0].float(), self.fov(images, coarsest))

    def features(self, images: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The whole image as its own encoder sees it, at a quarter of the size, after the last block and the final norm.

        Args:
            images: as in `forward`. Errors as there.

        Returns:
            One pair of patch tokens (B, N, C), row-major, N = (S / 64)^2, and class token (B, C).
        """
        self._check(*images.shape[-2:])
        tokens = self.encoder.whole(reduced(images, 0.25))
        return [(tokens[:, 1:], tokens[:, 0])]

    def lowered(self, dtype: torch.dtype) -> DepthPro:
        """A copy that computes in `dtype`, but for the last two convolutions of the head and the one that gives the angle.

        Those stay in float32, in which images come and values go: half precision there shows as steps in depth.
        """
        exact = {id(p) for part in (self.head[2:], self.fov.head[-1]) for p in part.parameters()}
        # Each parameter is lowered before it is copied: the whole network need not be held in float32 twice.
        lower = {
            id(p): nn.Parameter(p.detach() if id(p) in exact else p.detach().to(dtype), requires_grad=False)
            for p in self.parameters()
        }
        return copy.deepcopy(self, lower).eval()

    def at_size(self, height: int, width: int) -> DepthPro:
        """The same network, sharing its weights, for inputs of one size only, with as many tiles at once as fit in memory now.

        Raises:
            ModelError: a size that the network does not take.
        """
        self._check(height, width)
        network = copy.deepcopy(self, {id(tensor): tensor for tensor in (*self.parameters(), *self.buffers())})
        network.encoder.fix_tile(height // 4)
        embed = network.encoder.patch_encoder.pos_embed
        free = free_memory(embed.device)
        if torch.are_deterministic_algorithms_enabled():
            network.tile_batch = 5  # whatever memory is free: other products may be summed in another order
        elif free is not None:
            network.tile_batch = tile_batch_for(free, *embed.shape[1:], embed.element_size())
        return network

    def _perceive(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Canonical inverse depth, the decoder's coarsest map, and the whole image's tokens."""
        self._check(*images.shape[-2:])
        levels, tokens = self.encoder(images, self.tile_batch)
        path, coarsest = self.decoder(levels)
        del levels  # 0.8 GB of float32 at 1536 x 1536, just before the head, which needs the most memory of all
        tail = self.head[2:]
        return tail(self.head[:2](path).to(tail[0].weight.dtype)).squeeze(1), coarsest, tokens

    def _check(self, height: int, width: int) -> None:
        if height != width or height % self.patch:
            raise ModelError(f"Depth Pro takes squares whose side is a multiple of {self.patch}, got {width}x{height}")
