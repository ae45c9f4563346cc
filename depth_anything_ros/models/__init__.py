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
from .network import DepthNetwork, token_grid
from .weights import check_licence, locate
from .zoo import ENCODERS, METRIC, MODELS, RELATIVE, Model, lookup

__all__ = [
    "ENCODERS",
    "METRIC",
    "MODELS",
    "RELATIVE",
    "CheckpointError",
    "DepthNetwork",
    "LicenceError",
    "Model",
    "ModelError",
    "check_licence",
    "create_model",
    "default_encoder",
    "locate",
    "lookup",
    "token_grid",
]


def create_model(name: str, encoder: str = "", checkpoint: str = "", allow_noncommercial: bool = False) -> DepthNetwork:
    """A network with its weights, in eval mode on the CPU.

    Args:
        name: "v1", "v2" (inverse depth), "v2_metric_indoor", "v2_metric_outdoor", "demo" (metres).
        encoder: "vits", "vitb", "vitl", "vitg" (V2 with your own checkpoint only), "tiny" (demo only); empty: the smallest.
        checkpoint: a `.pth` or `.safetensors` file; empty: the published one, downloaded into the hub's cache on first use.
        allow_noncommercial: accept published weights whose licence forbids commercial use.

    Raises:
        ModelError: an unknown name. Its kinds: CheckpointError (file missing, damaged, of another model), LicenceError.
    """
    encoder = encoder or default_encoder(name)
    model, row = lookup(name, encoder)
    path = locate(name, encoder, str(checkpoint), allow_noncommercial)
    with torch.device("meta"):  # the weights replace every parameter: nothing to initialise
        network = DepthNetwork(model, row, model.taps[encoder])
    load_checkpoint(network, path, encoder)
    return network.requires_grad_(False).eval()


def default_encoder(name: str) -> str:
    """The smallest encoder of a model, which is also the one with the freest licence."""
    if name not in MODELS:
        raise ModelError(f"unknown model '{name}', expected one of: {', '.join(MODELS)}")
    return next(iter(MODELS[name].taps))
