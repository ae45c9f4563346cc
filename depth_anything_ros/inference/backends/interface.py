# SPDX-License-Identifier: Apache-2.0
"""What every backend is to the rest of the package."""

from __future__ import annotations

from typing import Protocol

import torch

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class BackendError(RuntimeError):
    """A backend cannot execute this network here; the message says why."""


class Backend(Protocol):
    """Executes one network. Sizes are prepared first: that may take seconds to minutes.

    Attributes:
        name: in `BACKENDS`.
        precision: in `PRECISIONS`: what most of the network is computed in.
        device: where images are taken from, and outputs left.
        max_sizes: how many sizes stay prepared: each takes memory.
    """

    name: str
    precision: str
    device: torch.device
    max_sizes: int

    def prepare(self, height: int, width: int) -> None:
        """Get ready for network inputs of this size.

        Raises:
            BackendError, or what its library raises: it cannot.
        """

    def forget(self, height: int, width: int) -> None:
        """Free what was prepared for this size."""

    def run(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, h, w) float32, normalised, on `device` -> (B, h, w) float32 there, the caller's to keep."""
