# SPDX-License-Identifier: Apache-2.0
"""The network that a training starts from: one that can be trained, made metric where metres are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from ..inference import preprocess
from ..models import CANONICAL, METRIC, RELATIVE, DepthNetwork, ModelError
from ..models.zoo import DEPTH_ANYTHING
from .draws import on_grid
from .samples import Bounds, DataError, Pair, read

_IMAGES = 8  # that the last layer is fitted to


def check_trainable(network: DepthNetwork, metric: bool) -> None:
    """Say whether this command can train a network, and with `metric` whether it can be made to say metres.

    Raises:
        ModelError: it cannot.
    """
    row = network.model
    if row.kind == CANONICAL:
        raise ModelError(
            f"a {row.architecture} network that takes its metres from the focal length is not trained here: its output is "
            "right for any camera. Take v2 or v2_metric_indoor; where its scale is off, set scale.source (docs/depth.md)"
        )
    if metric and row.kind == METRIC:
        raise ModelError(f"--metric is for relative networks, but this one says metres already, up to {row.max_depth:g}")
    if metric and row.architecture != DEPTH_ANYTHING:
        raise ModelError(f"--metric is for the heads of Depth Anything 1 and 2, but this one is of {row.architecture}: take v2")


def with_row(network: DepthNetwork, **changes) -> DepthNetwork:
    """The same network, of a row of the zoo with these changes."""
    network.model = replace(network.model, **changes)
    network.kind = network.model.kind
    return network


def as_metric(network: DepthNetwork, max_depth: float) -> DepthNetwork:
    """A relative network that from now on says max_depth * sigmoid(its last layer): Depth Anything's metric networks.

    Its last layer means nothing yet: `fit_last_layer`.
    """
    return with_row(network, kind=METRIC, max_depth=max_depth, training_focal=0.0)


@torch.no_grad()
def fit_last_layer(
    network: DepthNetwork, pairs: Sequence[Pair], bounds: Bounds, size: tuple[int, int], trained: bool = True
) -> None:
    """Replace what the last convolution says, v, by a * v + b, which fits some images best before its activation.

    The published fine-tuning starts with a random head, and so needs many images to learn again what near and far are. A
    relative head knows; what changes is what its numbers mean.

    Args:
        trained: whether the head knows near from far; of a random one only the mean is put right (a is 1).

    Raises:
        DataError: no image has depth at the network's grid.
    """
    said: list[torch.Tensor] = []
    layers = network.depth_head.scratch.output_conv2
    hook = layers.register_forward_hook(lambda module, inputs, output: said.append(output[:, 0]))
    xs, ys = [], []
    try:
        stride = max(1, len(pairs) // _IMAGES)
        for index in sorted(range(len(pairs)), key=lambda index: index % stride):  # spread evenly; more, if some are empty
            rgb, depth = read(pairs[index])
            mask = torch.from_numpy(on_grid(bounds.valid(depth), size)) > 0
            if not mask.any():
                continue
            goal = _before_activation(network, torch.from_numpy(on_grid(depth, size))[mask])
            network.eval()(preprocess([rgb], size, torch.device("cpu"), network.model))
            xs.append(said.pop()[0][mask].double())
            ys.append(goal.double())
            if len(xs) == _IMAGES:
                break
    finally:
        hook.remove()
    if not xs:
        raise DataError(f"none of {len(pairs)} depth images has a valid pixel where the network's {size[0]}x{size[1]} look")
    x, y = torch.cat(xs), torch.cat(ys)
    centred = x - x.mean()
    scale = float(centred @ (y - y.mean()) / (centred @ centred).clamp_min(1e-12)) if trained else 1.0
    shift = float(y.mean() - scale * x.mean())
    layers[-1].weight.mul_(scale)
    layers[-1].bias.mul_(scale).add_(shift)


def _before_activation(network: DepthNetwork, depth: torch.Tensor) -> torch.Tensor:
    """What the last layer has to say of depth (N,) in metres."""
    if network.kind == RELATIVE:
        return 1 / depth
    return torch.logit(depth / network.model.max_depth, eps=1e-4)
