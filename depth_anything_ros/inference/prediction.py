# SPDX-License-Identifier: Apache-2.0
"""What a network said about one image, with what its numbers mean."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

Focal = tuple[float, float]  # fx, fy in pixels of an image


@dataclass(frozen=True)
class Features:
    """What an encoder saw in one image.

    Attributes:
        tokens: (rows, columns, C) float32 on the device that computed them, as they lie in the image.
        class_token: (C,) float32, or None where the encoder has none.
        input_size: (width, height) of what the network saw; each token is of an equal part of it.
    """

    tokens: torch.Tensor
    class_token: torch.Tensor | None
    input_size: tuple[int, int]


@dataclass(frozen=True)
class Prediction:
    """One image's output at the network's own grid.

    Attributes:
        tensor: (h, w) float32 on the device that computed it.
        kind: "metric" (metres along the optical axis) or "relative" (inverse depth of unknown scale and shift, near = large).
        image_size: (height, width) of the image that was given.
        align_corners: how the reference implementation of this model enlarges its output.
        network: "model/encoder/input size", which weights if not the published ones, and what stood for a focal length that was
            needed and not known.
        limit: metres that the network cannot go beyond (metric only): sky and all that is farther is there; 0: none.
        confidence: (h, w) float32 from 0 to 1, or None: see `DepthEstimator.predict_batch`.
        focal: (fx, fy) in pixels of the image that metres were made with; None: the network takes none.
        estimated: whether the network itself has estimated that focal length.
        features: what the encoder saw; None: nobody asked.
    """

    tensor: torch.Tensor
    kind: str
    image_size: tuple[int, int]
    align_corners: bool
    network: str = ""
    limit: float = 0.0
    confidence: torch.Tensor | None = None
    focal: Focal | None = None
    estimated: bool = False
    features: Features | None = None

    @property
    def values(self) -> np.ndarray:
        """(h, w) float32 at the network's grid, on the CPU."""
        return self.tensor.cpu().numpy()

    def turned(self, degrees: int) -> Prediction:
        """The prediction of the image as it was before it was turned clockwise by `degrees` (a multiple of 90)."""
        if not degrees:
            return self
        times, step = degrees // 90, 1 if degrees % 180 == 0 else -1
        features = self.features
        if features:
            features = replace(features, tokens=torch.rot90(features.tokens, times), input_size=features.input_size[::step])
        return replace(
            self,
            tensor=torch.rot90(self.tensor, times),
            image_size=self.image_size[::step],
            confidence=None if self.confidence is None else torch.rot90(self.confidence, times),
            focal=self.focal and self.focal[::step],
            features=features,
        )

    def at_image_size(self) -> np.ndarray:
        """(H, W) float32 at the size of the image, enlarged bilinearly, on the CPU."""
        return self.resized().cpu().numpy()

    def resized(self, values: torch.Tensor | None = None) -> torch.Tensor:
        """`at_image_size`, but still on the device; of other values (h, w) at the same grid, if they are given."""
        values = self.tensor if values is None else values
        if tuple(values.shape) == self.image_size:
            return values
        return F.interpolate(values[None, None], size=self.image_size, mode="bilinear", align_corners=self.align_corners)[0, 0]
