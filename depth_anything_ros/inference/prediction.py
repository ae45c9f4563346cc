# SPDX-License-Identifier: Apache-2.0
"""What a network said about one image, with what its numbers mean."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Prediction:
    """One image's output at the network's own grid.

    Attributes:
        tensor: (h, w) float32 on the device that computed it.
        kind: "metric" (metres along the optical axis) or "relative" (inverse depth of unknown scale and shift, near = large).
        image_size: (height, width) of the image that was given.
        align_corners: how the reference implementation of this model enlarges its output.
        network: "model/encoder/input size", and the file of weights that are not the published ones.
        limit: metres that the network cannot go beyond (metric only): sky and all that is farther is there; 0: none.
        confidence: (h, w) float32 from 0 to 1, or None: see `DepthEstimator.predict_batch`.
    """

    tensor: torch.Tensor
    kind: str
    image_size: tuple[int, int]
    align_corners: bool
    network: str = ""
    limit: float = 0.0
    confidence: torch.Tensor | None = None

    @property
    def values(self) -> np.ndarray:
        """(h, w) float32 at the network's grid, on the CPU."""
        return self.tensor.cpu().numpy()

    def turned(self, degrees: int) -> Prediction:
        """The prediction of the image as it was before it was turned clockwise by `degrees` (a multiple of 90)."""
        if not degrees:
            return self
        height, width = self.image_size
        size = (height, width) if degrees % 180 == 0 else (width, height)
        confidence = None if self.confidence is None else torch.rot90(self.confidence, degrees // 90)
        return replace(self, tensor=torch.rot90(self.tensor, degrees // 90), image_size=size, confidence=confidence)

    def at_image_size(self) -> np.ndarray:
        """(H, W) float32 at the size of the image, enlarged bilinearly, on the CPU."""
        return self.resized().cpu().numpy()

    def resized(self, values: torch.Tensor | None = None) -> torch.Tensor:
        """`at_image_size`, but still on the device; of other values (h, w) at the same grid, if they are given."""
        values = self.tensor if values is None else values
        if tuple(values.shape) == self.image_size:
            return values
        return F.interpolate(values[None, None], size=self.image_size, mode="bilinear", align_corners=self.align_corners)[0, 0]
