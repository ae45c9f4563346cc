# SPDX-License-Identifier: Apache-2.0
"""Networks of one's own: files that say themselves what is in them, and the model "custom" that reads them.

A published checkpoint is nothing but tensors, so that a wrong name of a model loads without an error and gives wrong depth.
What is trained here cannot go wrong that way: the file's header holds the rows of the zoo that the network was made of.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .errors import CheckpointError, ModelError
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
    lookup,
)

_KEY, _FORMAT = "depth_anything_ros", 1
_OF_MODEL = [f.name for f in fields(Model) if f.name not in ("taps", "weights", "unpublished_licence", "identity")]


def save_network(network: DepthNetwork, path: str | Path, origin: str, licence: str, note: str = "") -> Path:
    """Write a network as a file that `create_model("custom", checkpoint=path)` takes; in one piece or not at all.

    Args:
        origin: what it was trained from, such as "v2/vits".
        licence: of the weights: that of what they were trained from binds them, too.
        note: a line for people.
    """
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
    said["identity"] = _digest(state)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    save_file(state, partial, {_KEY: json.dumps(said)})
    partial.replace(path)
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
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_KEY)
        if text is None:
            return None
        said = json.loads(text)
        if said["format"] != _FORMAT:
            raise CheckpointError(f"'{path}' is of format {said['format']}, this package reads {_FORMAT}: update it")
        name = said["encoder name"]
        own = {"taps": {name: tuple(said["taps"])}, "unpublished_licence": {name: said["licence"]}}
        row = _frozen(Model(**said["model"], **own, weights={}, identity=said["identity"]))
        _check(row)
        return row, _frozen(Encoder(**said["encoder"])), name
    except SafetensorError as error:
        raise CheckpointError(f"'{path}' is damaged or incomplete: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"'{path}' says of itself what cannot be understood: {error}") from error


def _check(row: Model) -> None:
    """Raise ValueError unless what a header says of a model can be."""
    for value, known in ((row.kind, (RELATIVE, METRIC)), (row.architecture, (DEPTH_ANYTHING, DEPTH_ANYTHING_3))):
        if value not in known:
            raise ValueError(f"'{value}', expected one of: {', '.join(known)}")
    if row.resize not in (SHORT_SIDE, LONG_SIDE) or len(row.mean) != 3 or len(row.std) != 3:
        raise ValueError(f"resize '{row.resize}', mean {row.mean}, std {row.std}")
    if not isinstance(row.input_size, int) or not 0 < row.input_size < 10_000 or (row.kind == METRIC) != (row.max_depth > 0):
        raise ValueError(f"input_size {row.input_size}, max_depth {row.max_depth} of a {row.kind} network")


def _digest(state: dict[str, torch.Tensor]) -> str:
    """Twelve letters that belong to these numbers alone."""
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
) -> DepthNetwork:
    """An untrained DPT head behind any ViT of timm, to be trained and kept with `save_network`.

    Args:
        timm: the ViT's name in timm.
        kind: "relative" (inverse depth >= 0) or "metric" (metres).
        max_depth: metres, metric only: what it can say at most.
        input_size: short side of the images, a multiple of the ViT's patch (or of its coarsest stride); 0: about the ViT's own.
        features, out_channels: see `Encoder`; the defaults are those of vits.
        pretrained: begin with timm's own weights of the ViT, which are downloaded; they have their licence.

    Raises:
        ModelError: see `TimmEncoder`; or metres without a max_depth.
    """
    from .timm_encoder import TimmEncoder

    if kind not in (RELATIVE, METRIC) or (kind == METRIC) != (max_depth > 0):
        raise ModelError(f"kind '{kind}' with max_depth {max_depth:g}: expected relative, or metric with a max_depth in metres")
    built = TimmEncoder(timm, pretrained=pretrained)
    unit, size = built.unit, built.size
    input_size = input_size or max(unit, round(min(size) / unit) * unit)
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
