# SPDX-License-Identifier: Apache-2.0
"""Depth networks on timm and their published checkpoints. No ROS.

net = create_model("v2", encoder="vits", checkpoint="depth_anything_v2_vits.pth")
depth = net(images)             # (B, 3, h, w) normalised -> (B, h, w)
levels = net.features(images)   # four (patch tokens (B, N, C), class token (B, C))
"""

from __future__ import annotations

import torch

from .checkpoint import load_checkpoint
from .errors import CheckpointError, LicenceError, ModelError
from .network import DepthNetwork, Examination, token_grid
from .own import new_network, rows_of, save_network
from .weights import check_licence, locate
from .zoo import (
    CANONICAL,
    CUSTOM,
    DEPTH_PRO,
    ENCODERS,
    METRIC,
    MODELS,
    RELATIVE,
    Encoder,
    Model,
    check_input_size,
    input_unit,
    lookup,
)

MODEL_NAMES = (*MODELS, CUSTOM)

__all__ = [
    "CANONICAL",
    "CUSTOM",
    "ENCODERS",
    "METRIC",
    "MODELS",
    "MODEL_NAMES",
    "RELATIVE",
    "CheckpointError",
    "DepthNetwork",
    "Examination",
    "LicenceError",
    "Model",
    "ModelError",
    "build",
    "check_input_size",
    "check_licence",
    "create_model",
    "input_unit",
    "locate",
    "lookup",
    "new_network",
    "rows_of",
    "save_network",
    "token_grid",
]


def create_model(name: str, encoder: str = "", checkpoint: str = "", allow_noncommercial: bool = False) -> DepthNetwork:
    """A network with its weights, in eval mode on the CPU.

    Args:
        name: "v1", "v2", "da3_mono" (inverse depth), "v2_metric_indoor", "v2_metric_outdoor", "demo" (metres), "da3_metric",
            "depth_pro" (metres once the focal length is known), or "custom" (what the checkpoint says of itself).
        encoder: "vits", "vitb", "vitl", "vitg" (V2 with your own checkpoint only), ...; empty: the model's smallest.
        checkpoint: a `.pth` or `.safetensors` file; empty: the published one, downloaded into the hub's cache on first use.
        allow_noncommercial: accept weights whose licence forbids commercial use.

    Raises:
        ModelError: an unknown name. Its kinds: CheckpointError (file missing, damaged, of another model), LicenceError.
    """
    model, row, encoder = rows_of(name, encoder, str(checkpoint))
    path = locate(name, encoder, str(checkpoint), allow_noncommercial)
    # The weights replace every parameter: nothing to initialise. But timm keeps tables that no file holds.
    with torch.device("cpu" if row.timm else "meta"):
        network = build(model, row, model.taps[encoder])
    load_checkpoint(network, path, encoder)
    return network.requires_grad_(False).eval()


def build(model: Model, encoder: Encoder, taps: tuple[int, ...]) -> DepthNetwork:
    """An untrained network of a row of the zoo; Depth Pro's is another class, with the methods of `DepthNetwork`.

    Raises:
        CheckpointError: what a file says of itself is no network that can be built.
    """
    if model.architecture == DEPTH_PRO:
        from .depth_pro import DepthPro  # imports timm

        return DepthPro(model, encoder, taps)
    try:
        return DepthNetwork(model, encoder, taps)
    except Exception as error:  # of a file's own row: nobody knows what libraries make of it
        if not model.identity:
            raise
        raise CheckpointError(f"the network that the checkpoint says it holds cannot be built: {error}") from error
