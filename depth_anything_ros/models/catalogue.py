# SPDX-License-Identifier: Apache-2.0
"""What there is to choose from: every published network, its licence, its file on this machine, and which to take when."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from .checkpoint import load_checkpoint, read_tensors
from .errors import CheckpointError
from .own import digest_of
from .weights import locate
from .zoo import CANONICAL, ENCODERS, METRIC, MODELS, Encoder, Model, Weights, noncommercial

_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Entry:
    """One network: a model with one of its encoders."""

    name: str
    encoder: str
    model: Model
    row: Encoder
    weights: Weights | None  # None: no file is published

    @property
    def output(self) -> str:
        """What comes out of it."""
        if self.model.kind == METRIC:
            return f"metres, up to {self.model.max_depth:g}"
        return "metres by the focal length" if self.model.kind == CANONICAL else "inverse depth, no unit"

    @property
    def licence(self) -> str:
        """Of its weights."""
        return self.model.licence(self.encoder)

    @property
    def commercial(self) -> bool:
        """Whether its licence allows commercial use."""
        return not noncommercial(self.licence)

    @property
    def source(self) -> str:
        """Where its weights come from."""
        if not self.weights:
            return "none published"
        return f"{self.weights.repo}/{self.weights.file}" if self.weights.repo else "in this package"

    def on_disk(self) -> Path | None:
        """Its file, if it is here already."""
        return locate(self.name, self.encoder, allow_noncommercial=True, download=False) if self.weights else None

    def parameters(self) -> int:
        """How many numbers it consists of."""
        return _count(self.name, self.encoder)


def entries() -> Iterator[Entry]:
    """Every network of the zoo, in its order."""
    for name, model in MODELS.items():
        for encoder in model.taps:
            yield Entry(name, encoder, model, ENCODERS[encoder], model.weights.get(encoder))


def verify(entry: Entry, path: Path) -> str:
    """What speaks for a file, in words.

    The hub's cache keeps large files under the SHA-256 that the hub gave for them: what is in there has to match its name. A
    file that describes itself names the digest of its numbers.

    Raises:
        CheckpointError: it is damaged, of another network, or not finite; the message says which.
    """
    found = [f"{path.stat().st_size / 1e6:.0f} MB"]
    name = path.resolve().name
    if _SHA256.fullmatch(name):
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
        if digest.hexdigest() != name:
            raise CheckpointError(
                f"'{path}' has SHA-256 {digest.hexdigest()}, the hub said {name}: delete it and download it again"
            )
        found.append("SHA-256 as the hub says")
    network = _empty(entry)
    load_checkpoint(network, path, entry.encoder)
    if entry.model.identity:  # a network that says itself which numbers it has
        if digest_of(read_tensors(path)) != entry.model.identity:
            raise CheckpointError(f"'{path}' holds other numbers than it was written with: it is damaged, copy it again")
        found.append("checksum as its header says")
    for tensor_name, tensor in network.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"'{path}' holds NaN or Inf in {tensor_name}: delete it and download it again")
    found.append(f"{len(network.state_dict())} tensors, every one in its place and finite")
    return ", ".join(found)


def _empty(entry: Entry):
    from . import build  # this module is not the package's: it is asked for by name

    with torch.device("meta"):
        return build(entry.model, entry.row, entry.model.taps[entry.encoder])


@lru_cache
def _count(name: str, encoder: str) -> int:
    entry = next(entry for entry in entries() if (entry.name, entry.encoder) == (name, encoder))
    return sum(parameter.numel() for parameter in _empty(entry).parameters())


@dataclass(frozen=True)
class Advice:
    """Which network to take for a purpose on a kind of computer.

    Attributes:
        use: "indoor", "outdoor" or "any".
        computer: "cpu", "jetson" or "gpu".
        commercial: whether the licence allows commercial use.
        settings: parameters of the node.
        why: a sentence.
    """

    use: str
    computer: str
    commercial: bool
    settings: dict[str, str | int]
    why: str


_IN, _OUT, _S, _L = {"model": "v2_metric_indoor"}, {"model": "v2_metric_outdoor"}, {"encoder": "vits"}, {"encoder": "vitl"}
_CPU, _JETSON = {"input_size": 280}, {"input_size": 392, "backend": "tensorrt"}
_FAST, _FINER = "with OpenVINO installed; input_size 518 for finer depth", "finer than vits, several times the work"
_ENGINE = "where ONNX Runtime has TensorRT, else leave backend out; which input_size is fast enough, depth_benchmark says"
_SPARSE = {"scale.source": "sparse", "scale.topic": "/scan"}
ADVICE = (
    Advice("indoor", "cpu", True, _IN | _S | _CPU, _FAST),
    Advice("outdoor", "cpu", True, _OUT | _S | _CPU, _FAST),
    Advice("indoor", "jetson", True, _IN | _S | _JETSON, _ENGINE),
    Advice("outdoor", "jetson", True, _OUT | _S | _JETSON, _ENGINE),
    Advice("indoor", "gpu", True, _IN | _S, "the fastest, and its metres were learnt indoors"),
    Advice(
        "outdoor", "gpu", True, {"model": "da3_metric"}, "tells the sky apart; metres follow the calibration, which it needs"
    ),
    Advice("indoor", "gpu", False, _IN | _L, _FINER),
    Advice("outdoor", "gpu", False, _OUT | _L, _FINER),
    Advice(
        "any", "gpu", False, {"model": "depth_pro"}, "sharp edges, for bags and maps: 0.3 s a frame on a V100 (its authors)"
    ),
    Advice("any", "cpu", True, {"model": "v2"} | _S | _SPARSE, "with a LiDAR, a laser or another range sensor: its metres"),
    Advice("any", "gpu", True, {"model": "da3_mono"} | _SPARSE, "the same with a larger network"),
)


def advice(use: str = "", computer: str = "", commercial: bool = False) -> list[Advice]:
    """What fits; empty: whatever it is. `commercial`: only what allows that."""
    return [
        one
        for one in ADVICE
        if (not use or one.use in (use, "any"))
        and (not computer or one.computer == computer)
        and (one.commercial or not commercial)
    ]
