# SPDX-License-Identifier: Apache-2.0
"""The network that settings ask for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..inference import DepthEstimator, network_size
from ..models import locate
from .settings import NetworkSettings, Settings


def located(network: NetworkSettings) -> Path:
    """The file of its weights, downloaded if need be. The licence was checked with the other parameters."""
    return locate(network.model, network.encoder, network.checkpoint, allow_noncommercial=True)


def load(network: NetworkSettings, path: Path, log: Callable[[str], None]) -> DepthEstimator:
    """The network with weights from a file.

    Raises:
        ModelError, ValueError: see `DepthEstimator.create`.
    """
    return DepthEstimator.create(
        network.model,
        network.encoder,
        str(path),
        network.input_size,
        network.device,
        network.precision,
        True,
        network.backend,
        network.max_tokens,
        log,
    )


def input_of(settings: Settings, width: int, height: int, input_size: int = 0) -> tuple[int, int]:
    """(width, height) that the network would see of an image, without loading it; `input_size`: the camera's own, or 0.

    Raises:
        ImageError: an impossible size.
    """
    size = input_size or settings.network.input_size or settings.model.input_size
    return network_size(width, height, size, settings.unit, settings.network.max_tokens, settings.model.resize)
