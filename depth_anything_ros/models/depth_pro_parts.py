# SPDX-License-Identifier: Apache-2.0
"""The parts of Depth Pro: a ViT that reads tiles, the pyramid of tiles around it, and the decoder that fuses its levels.

Parameter names and the order of operations follow the published checkpoint (apple/ml-depth-pro,
`src/depth_pro/network/encoder.py`, `decoder.py`; Bochkovskii et al., ICLR 2025), so that its state dict loads strictly.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from .backbone import vit_options
from .network import token_grid
from .zoo import Encoder

FINE, MIDDLE = 5, 3  # tiles along a side of the image at full and at half size
TILE_TOKENS = 8  # a tile is a multiple of so many tokens, for its overlaps and trims (1/4, 1/8 of it) to be whole tokens
_LIVE = 12  # token maps that a ViT holds at its peak: two taps, and in a block's MLP input, normed input, 4 + 4 around GELU


class TileViT(VisionTransformer):
    """timm's ViT, which resamples its position embedding only for tiles that are not of the training size.

    For those it is resampled as the reference resampled DINOv2's for its own tiles (`vit.py`, `resize_vit`). Nothing was
    trained at another size: smaller tiles are an option for speed, whose accuracy has not been measured.
    """

    def _pos_embed(self, x: torch.Tensor) -> torch.Tensor:
        """(B, h, w, C) patches -> (B, 1 + h * w, C) tokens, class token first."""
        batch, height, width, channels = x.shape
        tokens = torch.cat([self.cls_token.expand(batch, -1, -1), x.reshape(batch, -1, channels)], dim=1)
        return tokens + self._grid_embed((height, width))

    def _grid_embed(self, grid: tuple[int, int]) -> torch.Tensor:
        # timm would resample to the same size, too, while a network is being exported.
        trained = tuple(self.patch_embed.grid_size)
        return self.pos_embed if grid == trained else resample_abs_pos_embed(self.pos_embed, list(grid), list(trained))

    def fix_grid(self, side: int) -> None:
        """From now on take only tiles of `side` x `side` patches: nothing is resampled at run time."""
        self.pos_embed = nn.Parameter(self._grid_embed((side, side)), requires_grad=False)
        self.patch_embed.grid_size = (side, side)


def build_vit(encoder: Encoder) -> TileViT:
    """A ViT for tiles of `encoder.train_size`; called, it gives (B, 1 + N, C) tokens after the final norm."""
    return TileViT(img_size=encoder.train_size, patch_size=encoder.patch, **vit_options(encoder))


class PyramidEncoder(nn.Module):
    """Tiles of the image at three sizes through one ViT, the whole image through another: five maps, one for each scale."""

    def __init__(self, encoder: Encoder, taps: tuple[int, ...]):
        super().__init__()
        self.taps, self.patch = list(taps), encoder.patch
        self.patch_encoder, self.image_encoder = build_vit(encoder), build_vit(encoder)
        width, (c0, c1, c2, c3) = encoder.width, encoder.out_channels
        self.upsample_latent0 = _enlarging(width, c0, encoder.features, times=3)
        self.upsample_latent1 = _enlarging(width, c0, c0, times=2)
        self.upsample0 = _enlarging(width, c1, c1, times=1)
        self.upsample1 = _enlarging(width, c2, c2, times=1)
        self.upsample2 = _enlarging(width, c3, c3, times=1)
        self.upsample_lowres = nn.ConvTranspose2d(width, c3, 2, stride=2)
        self.fuse_lowres = nn.Conv2d(2 * c3, c3, 1)

    def forward(self, images: torch.Tensor, tile_batch: int) -> tuple[list[torch.Tensor], torch.Tensor]:
        """The pyramid that the decoder is given, and what is known of the whole image.

        Args:
            images: (B, 3, S, S) float32.
            tile_batch: how many of the 35 B tiles go through the ViT at once; 0: all. The values do not depend on it.

        Returns:
            Five maps (B, channels, s, s), s = S / 2, S / 4, S / 8, S / 16, S / 32; and the tokens of `whole`.
        """
        tile, batch = images.shape[-1] // 4, len(images)
        # 1. The image at full, half and quarter size; not in half precision, which would round the pixels.
        half, quarter = reduced(images, 0.5), reduced(images, 0.25)
        # 2. Cut into tiles of the quarter's size: 5 x 5 that overlap by 1/4, 3 x 3 that overlap by 1/2, and the quarter.
        tiles = torch.cat([split_tiles(images, tile, tile * 3 // 4), split_tiles(half, tile, tile // 2), quarter])
        # 3. Through the ViT: its last block after the final norm, and as they are two earlier ones, of the fine tiles only.
        first, second, last = self._encode(tiles, tile_batch)
        fine, middle, coarse = last.split([FINE**2 * batch, MIDDLE**2 * batch, batch])
        # 4. Put together again, without the halves of the overlaps that are nearest to a tile's edge.
        trim = tile // self.patch // 8
        first, second, fine = (merge_tiles(x[: FINE**2 * batch], FINE, trim) for x in (first, second, fine))
        middle = merge_tiles(middle, MIDDLE, 2 * trim)
        # 5. The whole image through its own ViT, fused with the coarsest tile.
        tokens = self.whole(quarter)
        context = self.upsample_lowres(token_grid(tokens[:, 1:], (tile, tile), self.patch))
        coarse = self.fuse_lowres(torch.cat([self.upsample2(coarse), context], dim=1))
        # 6. Each to its own resolution.
        finer = [self.upsample_latent0(first), self.upsample_latent1(second), self.upsample0(fine), self.upsample1(middle)]
        return [*finer, coarse], tokens

    def whole(self, quarter: torch.Tensor) -> torch.Tensor:
        """The image at a quarter of its size (B, 3, S / 4, S / 4) -> normed tokens (B, 1 + N, C), class token first."""
        return self.image_encoder(quarter.to(self.image_encoder.pos_embed.dtype))

    def fix_tile(self, tile: int) -> None:
        """From now on take only images of four times this side, in pixels."""
        for vit in (self.patch_encoder, self.image_encoder):
            vit.fix_grid(tile // self.patch)

    def _encode(self, tiles: torch.Tensor, tile_batch: int) -> list[torch.Tensor]:
        """(N, 3, t, t) -> the two taps and the last block's normed output, each (N, C, t / patch, t / patch)."""
        chunks = -(-len(tiles) // tile_batch) if tile_batch else 1
        levels = [self._encode_at_once(chunk) for chunk in tiles.to(self.patch_encoder.pos_embed.dtype).tensor_split(chunks)]
        return [token_grid(torch.cat(level), tuple(tiles.shape[-2:]), self.patch) for level in zip(*levels)]

    def _encode_at_once(self, tiles: torch.Tensor) -> list[torch.Tensor]:
        last, taps = self.patch_encoder.forward_intermediates(tiles, indices=self.taps, norm=False, output_fmt="NLC")
        return [*taps, last[:, 1:]]


def _enlarging(before: int, between: int, after: int, times: int) -> nn.Sequential:
    """A projection, then as many doublings of the resolution."""
    doublings = [nn.ConvTranspose2d(between if i == 0 else after, after, 2, stride=2, bias=False) for i in range(times)]
    return nn.Sequential(nn.Conv2d(before, between, 1, bias=False), *doublings)


def reduced(images: torch.Tensor, scale: float) -> torch.Tensor:
    """Images (B, C, h, w) at a fraction of their size; without antialiasing, as in training."""
    return F.interpolate(images, scale_factor=scale, mode="bilinear", align_corners=False)


def split_tiles(images: torch.Tensor, tile: int, stride: int) -> torch.Tensor:
    """(B, C, S, S) -> (n * n * B, C, tile, tile): tiles row by row, of each one those of all images."""
    starts = range(0, images.shape[-1] - tile + 1, stride)
    return torch.cat([images[..., y : y + tile, x : x + tile] for y in starts for x in starts])


def merge_tiles(tiles: torch.Tensor, count: int, trim: int) -> torch.Tensor:
    """The maps of `count` x `count` tiles, in the order of `split_tiles`, side by side.

    Args:
        tiles: (count * count * B, C, t, t).
        trim: what to leave away at the edges of a tile that are not edges of the image, in tokens.

    Returns:
        (B, C, s, s) with s = count * t - 2 * (count - 1) * trim.
    """
    size, grid = tiles.shape[-1], tiles.unflatten(0, (count, count, -1))
    kept = [slice(trim if i else 0, size - trim if i < count - 1 else size) for i in range(count)]
    rows = [torch.cat([grid[y, x][..., kept[y], kept[x]] for x in range(count)], dim=-1) for y in range(count)]
    return torch.cat(rows, dim=-2)


class Residual(nn.Module):
    """Two 3x3 convolutions, each after a ReLU, around a skip connection."""

    def __init__(self, features: int):
        super().__init__()
        self.residual = nn.Sequential(
            nn.ReLU(),  # not in place: the input is needed for the skip
            nn.Conv2d(features, features, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(features, features, 3, padding=1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, features, h, w) -> the same shape."""
        return x + self.residual(x)


class Fusion(nn.Module):
    """Adds one level of the pyramid to the running sum, and doubles the resolution but for the finest."""

    def __init__(self, features: int, doubles: bool):
        super().__init__()
        self.resnet1 = Residual(features)  # unused in the coarsest, but in the checkpoint
        self.resnet2 = Residual(features)
        self.deconv = nn.ConvTranspose2d(features, features, 2, stride=2, bias=False) if doubles else nn.Identity()
        self.out_conv = nn.Conv2d(features, features, 1)

    def forward(self, path: torch.Tensor, lateral: torch.Tensor | None = None) -> torch.Tensor:
        """`path` and `lateral` (B, features, h, w) -> (B, features, 2 h, 2 w)."""
        if lateral is not None:
            path = path + self.resnet1(lateral)
        return self.out_conv(self.deconv(self.resnet2(path)))


class Decoder(nn.Module):
    """Five maps of the encoder, fine ones first -> one at the resolution of the finest."""

    def __init__(self, out_channels: tuple[int, ...], features: int):
        super().__init__()
        laterals = (nn.Conv2d(channels, features, 3, padding=1, bias=False) for channels in out_channels)
        self.convs = nn.ModuleList([nn.Identity(), *laterals])  # the finest comes with `features` channels
        self.fusions = nn.ModuleList(Fusion(features, doubles=level > 0) for level in range(len(self.convs)))

    def forward(self, levels: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """The maps of `PyramidEncoder` -> (B, features, S / 2, S / 2), and the coarsest lateral, (B, features, S / 32, ...)."""
        *finer, coarsest = (conv(level) for conv, level in zip(self.convs, levels))
        path = self.fusions[-1](coarsest)
        for fusion, lateral in zip(reversed(self.fusions[:-1]), reversed(finer)):
            path = fusion(path, lateral)
        return path, coarsest


def tile_batch_for(free_bytes: int, tokens: int, width: int, element_size: int, share: float = 0.5) -> int:
    """How many tiles the patch encoder can take at once in a share of the free memory; at least one.

    By the maps that a block holds; fused attention, torch's own where there is one, adds nothing to them.

    Args:
        free_bytes: of the device, beside the weights.
        tokens: of one tile, with the class token.
        width: of a token.
        element_size: bytes of a number.
        share: the rest is for the maps of the decoder and for other programs.
    """
    return max(1, int(free_bytes * share) // (_LIVE * tokens * width * element_size))


def free_memory(device: torch.device) -> int | None:
    """Bytes that a device has to give now; None where nobody tells."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch's own, ready for reuse
        return torch.cuda.mem_get_info(device)[0] + cached
    table = Path("/proc/meminfo")
    if device.type != "cpu" or not table.is_file():
        return None
    lines = (line.split() for line in table.read_text().splitlines())
    return next((int(words[1]) * 1024 for words in lines if words[0] == "MemAvailable:"), None)
