# SPDX-License-Identifier: Apache-2.0
"""Checkpoint files -> state dicts with our names: the published `.pth`, `.safetensors`, and the transformers `-hf` layout.

Nothing in a file is ever executed: pickles are read with `weights_only=True`.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from .errors import CheckpointError
from .zoo import DEPTH_ANYTHING_3, DEPTH_PRO, ENCODERS

StateDict = dict[str, torch.Tensor]

# The transformers copies: (pattern, replacement). Attention is joined from its three parts in `_from_transformers`.
_TRANSFORMERS_NAMES = [
    (r"^backbone\.embeddings\.position_embeddings$", "pretrained.pos_embed"),
    (r"^backbone\.embeddings\.(cls_token|mask_token)$", r"pretrained.\1"),
    (r"^backbone\.embeddings\.patch_embeddings\.projection\.", "pretrained.patch_embed.proj."),
    (r"^backbone\.layernorm\.", "pretrained.norm."),
    (r"^backbone\.encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1$", r"pretrained.blocks.\1.ls\2.gamma"),
    (r"^backbone\.encoder\.layer\.(\d+)\.attention\.(?:output\.dense|o_proj)\.", r"pretrained.blocks.\1.attn.proj."),
    (r"^backbone\.encoder\.layer\.(\d+)\.(norm[12]|mlp\.fc[12])\.", r"pretrained.blocks.\1.\2."),
    (r"^neck\.reassemble_stage\.layers\.(\d)\.projection\.", r"depth_head.projects.\1."),
    (r"^neck\.reassemble_stage\.layers\.(\d)\.resize\.", r"depth_head.resize_layers.\1."),
    (r"^head\.conv1\.", "depth_head.scratch.output_conv1."),
    (r"^head\.conv2\.", "depth_head.scratch.output_conv2.0."),
    (r"^head\.conv3\.", "depth_head.scratch.output_conv2.2."),
]
_QKV = re.compile(r"^backbone\.encoder\.layer\.(\d+)\.attention\.(?:attention\.(query|key|value)|([qkv])_proj)\.(weight|bias)$")
_CONV = re.compile(r"^neck\.convs\.(\d)\.weight$")
_FUSION = re.compile(r"^neck\.fusion_stage\.layers\.(\d)\.(projection|residual_layer([12])\.convolution([12]))\.(weight|bias)$")


def load_checkpoint(network: nn.Module, path: Path, encoder: str) -> None:
    """Load a file into a network, strictly: every tensor present, none left over, every shape equal.

    Raises:
        CheckpointError: the file is missing, damaged, not plain tensors, or of another architecture.
    """
    state = _with_our_names(read_tensors(path), network.model.architecture)
    expected = network.state_dict()
    found_encoder = _encoder_of(state)
    if found_encoder and not network.encoder.timm and ENCODERS[found_encoder].width != network.encoder.width:
        raise CheckpointError(f"'{path}' holds the weights of encoder '{found_encoder}', but '{encoder}' was asked for")
    problems = {
        "missing": sorted(expected.keys() - state.keys()),
        "unknown": sorted(state.keys() - expected.keys()),
        "of another shape": [n for n, tensor in expected.items() if n in state and state[n].shape != tensor.shape],
    }
    found = [f"{len(names)} tensors are {what}, such as {names[0]}" for what, names in problems.items() if names]
    if found:
        of = f"{network.model.architecture} checkpoint with encoder '{encoder}'"
        raise CheckpointError(f"'{path}' is not a {of}: {'; '.join(found)}")
    for name, tensor in state.items():
        state[name] = tensor.float() if tensor.is_floating_point() else tensor  # one by one: the lower precision is let go of
    network.load_state_dict(state, strict=True, assign=True)


def check_beginning(path: Path) -> bytes:
    """The first bytes of a file, which are not those of what downloads leave behind instead of one.

    Raises:
        CheckpointError: there is no file, or it is a git-lfs pointer or a web page.
    """
    if not path.is_file():
        raise CheckpointError(f"checkpoint '{path}' does not exist or is not a file")
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"'{path}' is a git-lfs pointer, not the weights: run `git lfs pull` or download the file itself")
    if head[8:9] != b"{" and head.lstrip()[:1] == b"<":  # a safetensors file begins with the length of its header, in bytes
        raise CheckpointError(f"'{path}' is a web page, not the weights: download the file itself (the 'resolve' link)")
    return head


def read_tensors(path: Path) -> StateDict:
    """The flat dict of tensors in a `.safetensors` file or a PyTorch file, on the CPU.

    Raises:
        CheckpointError: with what is wrong with the file and what to do.
    """
    head = check_beginning(path)
    damaged = f"'{path}' ({path.stat().st_size} bytes) is damaged or incomplete, download it again"
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, ValueError, OSError) as error:
            raise CheckpointError(f"{damaged}: {error}") from error
    if head and not head.startswith((b"PK", b"\x80")):
        raise CheckpointError(f"'{path}' is not a PyTorch or safetensors file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"'{path}' holds more than plain tensors, and loading it could run code: refused ({_first_line(error)})"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, IndexError) as error:
        raise CheckpointError(f"{damaged}: {_first_line(error)}") from error
    for wrapper in ("model", "state_dict"):  # as training scripts save it
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise CheckpointError(f"'{path}' is not a plain dict of tensors (a state dict), but {type(content).__name__}")
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]


def _encoder_of(state: StateDict) -> str | None:
    """Which encoder a state dict is of, by the width of its class token."""
    token = state.get("pretrained.cls_token")
    if token is None:
        return None
    return next((name for name, row in ENCODERS.items() if row.width == token.shape[-1]), None)


def _with_our_names(state: StateDict, architecture: str) -> StateDict:
    if architecture == DEPTH_PRO:
        from . import depth_pro_names

        return depth_pro_names.from_transformers(state) if depth_pro_names.is_transformers(state) else state
    if architecture == DEPTH_ANYTHING_3:
        state = {re.sub(r"^model\.(backbone\.pretrained|head)\.", _our_part, name): t for name, t in state.items()}
    elif any(name.startswith("backbone.embeddings.") for name in state):
        state = _from_transformers(state)
    names = {name: name.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2.") for name in state}
    return {names[name]: tensor for name, tensor in state.items() if name != "pretrained.mask_token"}  # unused by any model


def _our_part(match: re.Match) -> str:
    return "depth_head." if match[1] == "head" else "pretrained."


def _from_transformers(state: StateDict) -> StateDict:
    """The layout of `transformers.DepthAnythingForDepthEstimation` -> that of the original repository."""
    renamed: StateDict = {}
    attention: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in state.items():
        if match := _QKV.match(name):
            block, word, letter, kind = match.groups()
            attention.setdefault(f"pretrained.blocks.{block}.attn.qkv.{kind}", {})[(word or letter)[0]] = tensor
        elif match := _CONV.match(name):
            renamed[f"depth_head.scratch.layer{int(match[1]) + 1}_rn.weight"] = tensor
        elif match := _FUSION.match(name):
            level, part, unit, conv, kind = match.groups()
            part = "out_conv" if part == "projection" else f"resConfUnit{unit}.conv{conv}"
            renamed[f"depth_head.scratch.refinenet{4 - int(level)}.{part}.{kind}"] = tensor
        else:
            renamed[_rename(name)] = tensor
    for name, parts in attention.items():
        if len(parts) == 3:  # an incomplete set is reported as missing by the strict comparison
            renamed[name] = torch.cat([parts["q"], parts["k"], parts["v"]])
    return renamed


def _rename(name: str) -> str:
    for pattern, replacement in _TRANSFORMERS_NAMES:
        renamed, count = re.subn(pattern, replacement, name)
        if count:
            return renamed
    return name
