# SPDX-License-Identifier: Apache-2.0
"""The depth node with tiny versions of networks that are too large for a test machine: the same code, other rows of the zoo."""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from depth_anything_ros.models import ENCODERS, MODELS, Model, build
from depth_anything_ros.models.zoo import Encoder
from depth_anything_ros.node.depth_node import main

PRO = Encoder(32, 2, 2, 16, (16, 32, 64, 64), patch=16, train_size=(384, 384))
DA3 = Encoder(48, 4, 3, 16, (8, 16, 16, 16))
TINY = {  # model -> (encoder's name, row, taps, what is different in the model's row)
    "depth_pro": ("pro", PRO, (0, 1), {"input_size": 512}),
    "da3_metric": ("da3", DA3, (0, 1, 2, 3), {"input_size": 252}),
    "da3_mono": ("da3", DA3, (0, 1, 2, 3), {"input_size": 252}),
}


def tiny(name: str) -> Model:
    """The row of a model, with its tiny encoder only, under the licence of the real one."""
    encoder, _, taps, changes = TINY[name]
    model = MODELS[name]
    licence = {encoder: model.licence(next(iter(model.taps)))}
    return replace(model, taps={encoder: taps}, weights={}, unpublished_licence=licence, **changes)


def write_weights(name: str, folder: Path) -> Path:
    """Random weights of a tiny network, whose output is positive all over, in the published layout."""
    _, row, taps, _ = TINY[name]
    torch.manual_seed(1)
    network = build(tiny(name), row, taps)
    if name == "depth_pro":
        network.head[4].bias.data.fill_(0.6)
        network.fov.head[-1].bias.data.fill_(70.0)  # degrees
    else:
        network.depth_head.scratch.sky_output_conv2[2].bias.data.fill_(-1.0)
    path = folder / f"tiny_{name}.pth"
    torch.save(network.state_dict(), path)
    return path


if __name__ == "__main__":
    MODELS.update({name: tiny(name) for name in TINY})
    ENCODERS.update({encoder: row for encoder, row, _, _ in TINY.values()})
    sys.exit(main())
