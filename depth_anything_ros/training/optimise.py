# SPDX-License-Identifier: Apache-2.0
"""How weights move: which at what rate, by what schedule, and their running average."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ..models import METRIC, DepthNetwork, ModelError
from .losses import scale_and_shift_invariant, silog

_POWER = 0.9  # of the decay; as the weight decay from Depth Anything V2, `metric_depth/train.py`
_WEIGHT_DECAY = 0.01


@dataclass(frozen=True)
class Settings:
    """Of a training.

    Attributes:
        steps: batches in all.
        rate: largest learning rate of the head.
        encoder_rate: of everything else.
        freeze_encoder: leave everything but the head as it is.
        checkpointing: compute the encoder's activations twice instead of keeping them.
        half: run the network in bfloat16 (CUDA); losses are always in float32.
        warm_up: share of the steps in which rates rise.
        clip: largest norm of the gradient.
        average: weight of the past in the running average of the weights, once there is a past.
        validate_every: steps between validations.
    """

    steps: int
    rate: float = 5e-5
    encoder_rate: float = 5e-6
    freeze_encoder: bool = False
    checkpointing: bool = False
    half: bool = False
    warm_up: float = 0.05
    clip: float = 1.0
    average: float = 0.999
    validate_every: int = 100


def rate_at(step: int, settings: Settings) -> float:
    """The share of the largest rate at a step: a straight rise, then (1 - t)^0.9."""
    rise = max(1, round(settings.warm_up * settings.steps))
    return min(1.0, (step + 1) / rise) * (1 - step / settings.steps) ** _POWER


def optimiser_of(network: DepthNetwork, settings: Settings) -> torch.optim.AdamW:
    """AdamW on the head and, at its own rate, on the encoder; a frozen one needs no gradients.

    The rates are the largest ones; `set_rates` sets those of a step.
    """
    head = list(network.depth_head.parameters())
    of_head = {id(parameter) for parameter in head}
    encoder = [parameter for parameter in network.parameters() if id(parameter) not in of_head]
    network.requires_grad_(True)
    groups = [{"params": head, "lr": settings.rate}]
    if settings.freeze_encoder:
        for parameter in encoder:
            parameter.requires_grad_(False)
    else:
        groups.append({"params": encoder, "lr": settings.encoder_rate})
    return torch.optim.AdamW(groups, betas=(0.9, 0.999), weight_decay=_WEIGHT_DECAY)


def set_rates(optimiser: torch.optim.Optimizer, step: int, settings: Settings) -> None:
    """The rates of a step."""
    share = rate_at(step, settings)
    for group, largest in zip(optimiser.param_groups, (settings.rate, settings.encoder_rate)):
        group["lr"] = largest * share


def in_training(network: DepthNetwork, settings: Settings) -> DepthNetwork:
    """The network in training mode, but its batch norms' statistics as they are: batches are too small for new ones.

    Raises:
        ModelError: its encoder does not know `Settings.checkpointing`, which is on.
    """
    network.train()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    vit = network.pretrained.model if network.encoder.timm else network.pretrained
    try:
        vit.set_grad_checkpointing(settings.checkpointing)
    except (AssertionError, AttributeError) as error:
        if settings.checkpointing:
            raise ModelError(f"{type(vit).__name__} cannot do --checkpointing: leave it out, or lower --batch") from error
    return network


def loss_of(network: DepthNetwork, images: torch.Tensor, depth: torch.Tensor, half: bool = False) -> torch.Tensor:
    """The loss of the network's kind, of images (B, 3, h, w) and depth (B, h, w) in metres, NaN where there is none."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=half):
        prediction = network(images)
    mask = torch.isfinite(depth)
    if network.kind == METRIC:
        return silog(prediction, depth, mask)
    return scale_and_shift_invariant(prediction, 1 / depth, mask)


@torch.no_grad()
def average_into(average: nn.Module, network: nn.Module, step: int, weight: float) -> None:
    """Move the running average towards the network after step number `step` (from 0).

    average = w * average + (1 - w) * network with w = min(weight, (1 + step) / (10 + step)), so that a short run does not
    remember its beginning.
    """
    past = min(weight, (1 + step) / (10 + step))
    for kept, now in zip(average.state_dict().values(), network.state_dict().values()):
        kept.lerp_(now, 1 - past) if kept.is_floating_point() else kept.copy_(now)
