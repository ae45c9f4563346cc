# SPDX-License-Identifier: Apache-2.0
"""Networks of one's own: files that say themselves what is in them, and the model "custom" that reads them.

A published checkpoint is nothing but tensors, so that a wrong name of a model loads without an error and gives wrong depth.
What is trained here cannot go wrong that way: the file's header holds the rows of the zoo that the network was made of.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, fields
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .checkpoint import check_beginning
from .errors import CheckpointError, ModelError
from .files import whole_file
from .network import DepthNetwork
from .zoo import (
    CUSTOM,
    DEPTH_ANYTHING,
    DEPTH_ANYTHING_3,
    ENCODERS,
    LONG_SIDE,
    METRIC,
    RELATIVE,
    SHORT_SIDE,
    Encoder,
    Model,
    check_input_size,
    input_unit,
    lookup,
)

_KEY, _FORMAT = "depth_anything_ros", 1
_MOST_LEVELS = 200  # of an encoder
# What a header may say: of these one, and of these numbers (type, least, most, how many).
_KNOWN = {
    "kind": (RELATIVE, METRIC),
    "architecture": (DEPTH_ANYTHING, DEPTH_ANYTHING_3),
    "resize": (SHORT_SIDE, LONG_SIDE),
    "align_corners": (False, True),
    "swiglu": (False, True),
}
_BOUNDS = {
    "max_depth": (float, 0, 1e6, 1),
    "canonical_focal": (float, 0, 1e6, 1),
    "training_focal": (float, 0, 1e3, 1),
    "input_size": (int, 1, 9_999, 1),
    "mean": (float, -10, 10, 3),
    "std": (float, 1e-3, 100, 3),
    "width": (int, 1, 10_000, 1),
    "depth": (int, 0, _MOST_LEVELS, 1),
    "heads": (int, 0, 1_000, 1),
    "features": (int, 1, 10_000, 1),
    "out_channels": (int, 1, 10_000, 4),
    "patch": (int, 1, 1_000, 1),
    "train_size": (int, 1, 10_000, 2),
    "stem": (int, 1, 10_000, 2),
}
_OF_MODEL = [f.name for f in fields(Model) if f.name not in ("taps", "weights", "unpublished_licence", "identity")]


def save_network(network: DepthNetwork, path: str | Path, origin: str, licence: str, note: str = "") -> Path:
    """Write a network as a file that `create_model("custom", checkpoint=path)` takes; in one piece or not at all.

    Args:
        origin: what it was trained from, such as "v2/vits".
        licence: of the weights: that of what they were trained from binds them, too.
        note: a line for people.

    Raises:
        OSError: the file cannot be written; what was there before still is. ModelError: no licence.
    """
    if not licence:
        raise ModelError("a network is kept with the licence of its weights, such as 'Apache-2.0' or 'your own'")
    path = Path(path).expanduser()
    names = [name for name, row in ENCODERS.items() if row == network.encoder]
    said = {
        "format": _FORMAT,
        "model": {name: getattr(network.model, name) for name in _OF_MODEL},
        "encoder": asdict(network.encoder),
        "encoder name": network.encoder.timm or (names[0] if names else "own"),
        "taps": network.taps,
        "origin": origin,
        "licence": licence,
        "note": note,
    }
    state = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in network.state_dict().items()}
    said["identity"] = digest_of(state)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        save_file(state, partial, {_KEY: json.dumps(said)})
    return path


def rows_of(model: str, encoder: str = "", checkpoint: str = "") -> tuple[Model, Encoder, str]:
    """The rows of a model and its encoder, and that encoder's name: from the zoo, or "custom" from the checkpoint's own header.

    Raises:
        ModelError: an unknown name. CheckpointError: the file is not there, or does not say what it is.
    """
    if model != CUSTOM:
        row, sizes = lookup(model, encoder)
        return row, sizes, encoder or next(iter(row.taps))
    if not checkpoint:
        raise ModelError("model 'custom' needs a checkpoint: the .safetensors file that depth_finetune wrote")
    path = Path(checkpoint).expanduser()
    if not path.is_file():
        raise CheckpointError(f"checkpoint '{path}' does not exist or is not a file")
    found = _rows_of(path)
    if found is None:
        raise CheckpointError(
            f"'{path}' does not say what network it is of: model 'custom' takes files that depth_finetune wrote; of a "
            "published checkpoint, set model and encoder"
        )
    if encoder and encoder != found[2]:
        raise CheckpointError(f"'{path}' holds encoder '{found[2]}', but '{encoder}' was asked for: leave encoder empty")
    return found


def describes_itself(path: Path) -> bool:
    """Whether a file is of a network of one's own."""
    return _rows_of(path) is not None


def _rows_of(path: Path) -> tuple[Model, Encoder, str] | None:
    try:
        return _rows_in(str(path), path.stat().st_mtime_ns) if path.suffix == ".safetensors" else None
    except OSError as error:
        raise CheckpointError(f"'{path}' cannot be read: {error}") from error


@lru_cache(maxsize=8)
def _rows_in(path: str, modified: int) -> tuple[Model, Encoder, str] | None:
    """The rows that a file's header holds; None: there are none."""
    check_beginning(Path(path))
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_KEY)
        if text is None:
            return None
        said = json.loads(text)
        if said["format"] != _FORMAT:
            raise CheckpointError(f"'{path}' is of format {said['format']}, this package reads {_FORMAT}: update it")
        name, texts = said["encoder name"], [said[key] for key in ("encoder name", "licence", "identity")]
        own = {"taps": {name: tuple(said["taps"])}, "unpublished_licence": {name: said["licence"]}}
        row = _frozen(Model(**said["model"], **own, weights={}, identity=said["identity"]))
        sizes = _frozen(Encoder(**said["encoder"]))
        _check(row, sizes, tuple(said["taps"]), texts)
        return row, sizes, name
    except SafetensorError as error:
        raise CheckpointError(f"'{path}' is damaged or incomplete: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"'{path}' says of itself what cannot be understood: {error}") from error


def _check(row: Model, sizes: Encoder, taps: tuple, texts: list) -> None:
    """Raise ValueError unless what a header says can be."""
    said = vars(row) | vars(sizes)
    for name, known in _KNOWN.items():
        if said[name] not in known or type(said[name]) is not type(known[0]):
            raise ValueError(f"{name} '{said[name]}', expected one of: {', '.join(map(str, known))}")
    for name, (kind, least, most, count) in _BOUNDS.items():
        value, kinds = said[name], (int, float) if kind is float else (int,)
        values = value if count > 1 else (value,)
        if name == "stem" and value is None:
            continue
        if not isinstance(values, tuple) or len(values) != count:
            raise ValueError(f"{name} {value}, expected {count} numbers")
        if not all(type(one) in kinds and least <= one <= most for one in values):
            raise ValueError(f"{name} {value}, expected {kind.__name__} from {least:g} to {most:g}")
    if not all(text and isinstance(text, str) for text in texts) or not isinstance(sizes.timm, str):
        raise ValueError(f"encoder name, licence and identity {texts}, timm {sizes.timm}, expected texts")
    if (row.kind == METRIC) != (row.max_depth > 0):
        raise ValueError(f"max_depth {row.max_depth} of a {row.kind} network")
    check_input_size(row.input_size, input_unit(row, sizes))
    levels = _MOST_LEVELS if sizes.timm else sizes.depth
    if len(taps) != (2 if sizes.stem else 4) or not all(type(tap) is int and 0 <= tap < levels for tap in taps):
        raise ValueError(f"taps {taps} of {levels} levels")
    if not sizes.timm and (not sizes.heads or sizes.width % sizes.heads or list(taps) != sorted(set(taps))):
        raise ValueError(f"width {sizes.width} with {sizes.heads} heads, taps {taps}")


def digest_of(state: dict[str, torch.Tensor]) -> str:
    """Twelve letters that belong to these numbers alone: `Model.identity` of a network that describes itself."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(name.encode() + tensor.view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else name.encode())
    return digest.hexdigest()[:12]


def _frozen(row):
    """JSON has no tuples."""
    return type(row)(**{f.name: _tuple(getattr(row, f.name)) for f in fields(row)})


def _tuple(value):
    return tuple(value) if isinstance(value, list) else value


def new_network(
    timm: str,
    kind: str = RELATIVE,
    max_depth: float = 0.0,
    input_size: int = 0,
    features: int = 64,
    out_channels: tuple[int, int, int, int] = (48, 96, 192, 384),
    pretrained: bool = False,
    taps: tuple[int, ...] = (),
) -> DepthNetwork:
    """An untrained DPT head behind any ViT of timm, to be trained and kept with `save_network`.

    Args:
        timm: the ViT's name in timm.
        kind: "relative" (inverse depth >= 0) or "metric" (metres).
        max_depth: metres, metric only: what it can say at most.
        input_size: short side of the images, a multiple of the ViT's patch (or of its coarsest stride); 0: about the ViT's own.
        features, out_channels: see `Encoder`; the defaults are those of vits.
        pretrained: begin with timm's own weights of the ViT, which are downloaded; they have their licence.
        taps: the four levels that the head is given, see `TimmEncoder`; empty: its choice.

    Raises:
        ModelError: see `TimmEncoder`; metres without a max_depth; or an input_size that is no such multiple.
    """
    from .timm_encoder import TimmEncoder

    if kind not in (RELATIVE, METRIC) or (kind == METRIC) != (max_depth > 0) or not math.isfinite(max_depth):
        raise ModelError(f"kind '{kind}' with max_depth {max_depth:g}: expected relative, or metric with a max_depth in metres")
    built = TimmEncoder(timm, taps=taps, pretrained=pretrained)
    unit, size = built.unit, built.size
    input_size = input_size or max(unit, round(min(size) / unit) * unit)
    check_input_size(input_size, unit)
    model = Model(
        kind,
        {timm: built.taps},
        {},
        architecture=DEPTH_ANYTHING,
        max_depth=max_depth,
        input_size=input_size,
        mean=tuple(built.model.pretrained_cfg["mean"]),
        std=tuple(built.model.pretrained_cfg["std"]),
        align_corners=False,
        unpublished_licence={timm: ""},
    )
    width = built.widths[-1]
    encoder = Encoder(width, 0, 0, features, tuple(out_channels), patch=unit, train_size=size, timm=timm)
    network = DepthNetwork(model, encoder, built.taps)
    network.pretrained.load_state_dict(built.state_dict())
    torch.nn.init.constant_(network.depth_head.scratch.output_conv2[2].bias, float(kind == RELATIVE))  # above ReLU's dead half
    return network.eval()
