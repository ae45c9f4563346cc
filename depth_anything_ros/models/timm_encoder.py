# SPDX-License-Identifier: Apache-2.0
"""Any network of timm that gives four levels of features, as the encoder of a dense head. No Depth Anything weights here.

encoder = TimmEncoder("mvitv2_tiny", size=(480, 640))
levels = encoder.maps(images)       # four maps (B, C, rows, columns)
tokens = encoder.taps_of(images)    # the same as (tokens (B, N, C), class token (B, C) or None)

Columnar networks (ViT, BEiT, CaiT ...) have one stride, pyramidal ones (MViT, Hiera, Twins ...) several. What a network
says of itself is asked, by a forward without numbers on PyTorch's meta device; `FAMILIES` holds the little that it does not.
Published Depth Anything weights need DINOv2's way of resampling and so `backbone.py`; here everything is timm's way.
"""

from __future__ import annotations

import copy
import difflib
import inspect
import math
from dataclasses import dataclass
from fractions import Fraction

import timm
import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed, resample_abs_pos_embed_nhwc
from torch import nn

from .errors import ModelError

TIMM = (1, 0, 31)  # before, families lack levels or sizes, and a ViT turned from 480x640 to 640x480 kept its position embedding
FAILURES = (AssertionError, RuntimeError, TypeError, ValueError)  # what timm's networks raise at a size they cannot take

# What families (modules of timm) do not say of themselves: the position embeddings that timm cannot resample for another
# size, each with a level that has their grid.
FAMILIES = {
    "cait": {"pos_embed": 0},
    "crossvit": {"pos_embed_0": 0, "pos_embed_1": 3},
    "hiera": {"pos_embed": 0},
    "tnt": {"patch_pos": 0},
    "volo": {"pos_embed": 1},
}

# Tables (2 n - 1, C) of relative positions of n cells along one axis of the image (0: rows), which timm builds for one size:
# on the meta device nobody notices an index beyond their end.
TABLES = {"mvitv2": {"rel_pos_h": 0, "rel_pos_w": 1}}


@dataclass(frozen=True)
class Level:
    """One of the levels that `forward_intermediates` gives: its channels, and the pixels of the input in a cell's side."""

    width: int
    stride: Fraction


class TimmEncoder(nn.Module):
    """Four levels of a network of timm, pruned of what comes after them (blocks and classifier).

    Each level has had the network's final LayerNorm where it has one for that level: all levels of a columnar network
    (but none of ConvMixer, of a ViT-SAM with a neck, and of a network that normalises after pooling, as BEiT), the last of a
    pyramidal one (levels 1 to 3 of VOLO and of CoaT but Lite, none of Hiera).

    Args:
        name: of timm, with or without the tag of its weights: "vit_small_patch16_224.augreg_in21k".
        size: (height, width) of the training images, pixels; (0, 0): the network's own.
        taps: four of the levels that timm's `forward_intermediates` counts from 0, in ascending order; empty: four spread
            evenly to the last block of a columnar network, the last four levels of a pyramidal one.
        pretrained: timm's own weights, downloaded from the hub on first use.

    Attributes:
        name, size, taps: as above, filled in.
        widths, strides: channels, and pixels of the input in a cell's side, of each of the four taps.
        unit: both sides of every input are multiples of it, pixels.
        has_class_token: whether taps come with a class token.
        any_size: inputs of every size are taken; otherwise only of `size`, see `at_size`.
        model: timm's network.

    Raises:
        ModelError: an unknown name, or a network, size or taps that cannot be used; the message says why.
    """

    def __init__(self, name: str, size: tuple[int, int] = (0, 0), taps: tuple[int, ...] = (), pretrained: bool = False):
        super().__init__()
        self.name, family = name, _module(name)
        self._positions, self._tables = FAMILIES.get(family, {}), TABLES.get(family, {})
        with torch.device("meta"):  # shapes without weights
            try:
                self._options = {"dynamic_img_size": True}  # ViTs whose forward resamples the position embedding
                blank = _create(name, **self._options)
            except TypeError:  # an option that the family does not know
                self._options = {}
                blank = _create(name)
        if not hasattr(blank, "forward_intermediates"):
            raise ModelError(f"'{name}' of timm {timm.__version__} has no forward_intermediates: choose another network")
        self.size = tuple(blank.pretrained_cfg["input_size"][1:])
        try:  # at its own size a network may round cells up (7.5 to 8): a multiple of all strides is better, where it is taken
            unit = math.lcm(*(info["reduction"] for info in blank.feature_info))
            self._norm, self._levels = _ask(blank, (4 * unit, 6 * unit))
            self.any_size = not self._tables
        except ModelError:
            self._norm, self._levels = _ask(blank, self.size)
            self.any_size = False
        self.unit = _common_multiple([level.stride for level in self._levels])
        self.taps = self._choose(tuple(taps))
        self.widths = tuple(self._levels[tap].width for tap in self.taps)
        self.strides = tuple(int(self._levels[tap].stride) for tap in self.taps)
        self.model = self._pruned(_create(name, pretrained=pretrained, **self._options))
        prefix = "return_prefix_tokens" in inspect.signature(self.model.forward_intermediates).parameters
        self.has_class_token = prefix and any(n.split(".")[-1] == "cls_token" for n, _ in self.model.named_parameters())
        if tuple(size) != (0, 0):
            self._resize(tuple(size))

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """`maps`."""
        return self.maps(images)

    def maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Images (B, 3, h, w), normalised as `model.pretrained_cfg` says -> four maps (B, C, rows, columns).

        Raises:
            ModelError: a side is not a multiple of `unit`, or not of `size` where that is the only one.
        """
        return [level for level, _ in self._run(images)]

    def taps_of(self, images: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        """As `maps`, but four pairs of patch tokens (B, N, C), row-major over `grid`, and class token (B, C) or None."""
        return [(level.flatten(2).transpose(1, 2), token) for level, token in self._run(images)]

    def grid(self, tap: int, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) of the cells of tap 0 to 3 for an input of this many pixels."""
        return height // self.strides[tap], width // self.strides[tap]

    def at_size(self, height: int, width: int) -> TimmEncoder:
        """The same network for inputs of another size.

        It shares its parameters, but for position embeddings and bias tables that belong to one size: those are resampled
        copies. What takes any size without them comes back as it is.

        Raises:
            ModelError: the network cannot take this size.
        """
        encoder = copy.deepcopy(self, {id(tensor): tensor for tensor in (*self.parameters(), *self.buffers())})
        encoder._resize((height, width))
        return encoder

    def _run(self, images: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        height, width = images.shape[-2:]
        self._check(height, width)
        if not self.any_size and (height, width) != self.size:
            raise ModelError(
                f"this {self.name} takes {self.size[1]}x{self.size[0]} only, got {width}x{height}: see TimmEncoder.at_size"
            )
        wanted = sorted(set(self.taps))
        options = {"return_prefix_tokens": True} if self.has_class_token else {}
        levels = _intermediates(self.model, images, self._norm, indices=wanted, **options)
        pairs = [(level[0], level[1][:, 0]) if self.has_class_token else (level, None) for level in levels]
        return [pairs[wanted.index(tap)] for tap in self.taps]

    def _check(self, height: int, width: int) -> None:
        if min(height, width) < 1 or height % self.unit or width % self.unit:
            raise ModelError(f"{self.name} takes sides that are multiples of {self.unit}, got {width}x{height}")

    def _choose(self, taps: tuple[int, ...]) -> tuple[int, ...]:
        """The four levels that were asked for, or those of the general rule."""
        count, strides = len(self._levels), [level.stride for level in self._levels]
        if not taps and count < 4:
            raise ModelError(f"{self.name} has {count} levels, of four that are needed: name some of them twice (taps)")
        spread = tuple(count * part // 4 - 1 for part in (1, 2, 3, 4))  # as Depth Anything V2: 2, 5, 8, 11 of 12
        last_four = tuple(range(count - 4, count))
        taps = taps or (spread if len(set(strides)) == 1 else last_four)
        if len(taps) != 4 or list(taps) != sorted(taps) or taps[0] < 0 or taps[3] >= count:
            raise ModelError(f"taps of {self.name} are four ascending numbers from 0 to {count - 1}, got {taps}")
        odd = {tap: stride for tap, stride in enumerate(strides) if stride.denominator > 1}
        if set(taps) & set(odd):
            cells = ", ".join(f"{tap}: {stride}" for tap, stride in odd.items())
            raise ModelError(f"levels of {self.name} have cells of no whole number of pixels ({cells}): name others (taps)")
        return taps

    def _pruned(self, model: nn.Module) -> nn.Module:
        """Without what no tap needs, so that training leaves no parameter without a gradient."""
        model.prune_intermediate_layers(sorted(set(self.taps)), prune_norm=not self._norm, prune_head=True)
        return model

    def _resize(self, size: tuple[int, int]) -> None:
        self._check(*size)
        if size == self.size:
            return
        # Swin takes any size too, but has nothing to resample: `set_input_size` would give it other windows.
        embedded = not self.any_size or getattr(self.model, "pos_embed", None) is not None
        try:
            if self._tables:
                self._stretch(size)
            elif embedded and hasattr(self.model, "set_input_size"):
                self.model.set_input_size(img_size=size)
            elif not self.any_size:
                self.model = self._rebuilt(size)
        except FAILURES as error:
            raise ModelError(f"{self.name} cannot be had for inputs of {size[1]}x{size[0]}: {error}") from error
        self.size = size

    def _stretch(self, size: tuple[int, int]) -> None:
        """Tables of relative positions for another size, by the rule of MViTv2's authors (SlowFast, `get_rel_pos`): linear."""
        for module in self.model.modules():
            for name, axis in self._tables.items():
                if (table := getattr(module, name, None)) is not None:
                    cells = (len(table) + 1) // 2 * size[axis] // self.size[axis]
                    values = F.interpolate(table.detach().T[None], size=2 * cells - 1, mode="linear")[0].T.contiguous()
                    setattr(module, name, nn.Parameter(values, requires_grad=table.requires_grad))

    def _rebuilt(self, size: tuple[int, int]) -> nn.Module:
        """A network that timm builds for this size, with the parameters of the present one."""
        state = self.model.state_dict(keep_vars=True)
        for name, level in self._positions.items():
            stride = self._levels[level].stride
            old, new = ((int(height / stride), int(width / stride)) for height, width in (self.size, size))
            state[name] = _resampled(state[name], old, new)
        with torch.device("meta"):
            model = _create(self.name, img_size=size, **self._options)
        _, levels = _ask(model, size)
        model = self._pruned(model)
        for name, parameter in model.named_parameters():  # load_state_dict would thaw the frozen ones that it is given
            parameter.requires_grad_(name in state and state[name].requires_grad)
        model.load_state_dict(state, assign=True)
        if levels != self._levels or any(name not in state for name, _ in model.named_buffers()):
            raise ModelError("timm builds it, or a table in it, for one size only")
        return model.train(self.training)


def _module(name: str) -> str:
    """The module of timm that builds a network of this name: its family."""
    if tuple(int(part) for part in timm.__version__.split(".")[:3]) < TIMM:
        wanted = ".".join(map(str, TIMM))
        raise ModelError(f"TimmEncoder needs timm {wanted}, found {timm.__version__}: python -m pip install --upgrade timm")
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=4, cutoff=0.5)
        raise ModelError(f"timm {timm.__version__} has no model '{name}'; close: {', '.join(close) or 'none'}")
    return timm.model_entrypoint(name).__module__.rpartition(".")[2]


def licence_of(name: str) -> str:
    """The licence of timm's own weights of a network, "unknown" where timm does not say; nothing is downloaded.

    Raises:
        ModelError: timm has no such network, or no such weights of it.
    """
    _module(name)
    try:
        return timm.get_pretrained_cfg(name).license or "unknown"
    except RuntimeError as error:
        raise ModelError(f"timm cannot build '{name}': {error}") from error


def _create(name: str, **options) -> nn.Module:
    try:
        return timm.create_model(name, num_classes=0, **options)
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ModelError(f"timm cannot build '{name}': {error}") from error


def _intermediates(model: nn.Module, images: torch.Tensor, norm: bool, **options) -> list:
    return model.forward_intermediates(images, norm=norm, output_fmt="NCHW", intermediates_only=True, **options)


def _ask(model: nn.Module, size: tuple[int, int]) -> tuple[bool, tuple[Level, ...]]:
    """Whether a network on the meta device can normalise its levels, and all its levels for inputs of this size."""
    images, widths = torch.zeros(1, 3, *size, device="meta"), [info["num_chs"] for info in model.feature_info]
    for norm in (True, False):
        try:
            levels = _intermediates(model.eval(), images, norm)
        except FAILURES as error:
            failure = error
            continue
        if [level.shape[1] for level in levels] == widths:  # a neck of convolutions (ViT-SAM) is no normalisation
            break
        failure = f"widths other than {widths}"
    else:
        raise ModelError(f"{type(model).__name__} gives no levels: {failure}")
    strides = [{Fraction(side, cells) for side, cells in zip(size, level.shape[2:])} for level in levels]
    if any(len(sides) > 1 for sides in strides):
        raise ModelError(f"{type(model).__name__} gives levels whose cells are not square")
    return norm, tuple(Level(width, *sides) for width, sides in zip(widths, strides))


def _common_multiple(strides: list[Fraction]) -> int:
    """The least whole number of pixels that is a whole number of cells in every level."""
    return math.lcm(*(s.numerator for s in strides)) // math.gcd(*(s.denominator for s in strides))


def _resampled(embed: nn.Parameter, old: tuple[int, int], new: tuple[int, int]) -> nn.Parameter:
    """A position embedding (1, prefix + rows * columns, C) or (1, rows, columns, C) of another grid, by timm's rule."""
    if embed.ndim == 3:
        prefix = embed.shape[1] - old[0] * old[1]
        values = resample_abs_pos_embed(embed, new_size=list(new), old_size=list(old), num_prefix_tokens=prefix)
    elif tuple(embed.shape[1:3]) == old:
        values = resample_abs_pos_embed_nhwc(embed, list(new))
    else:  # (1, C, rows, columns) of a Hiera with windowed embeddings, which resamples it itself
        return embed
    return nn.Parameter(values.detach(), requires_grad=embed.requires_grad)
