# SPDX-License-Identifier: Apache-2.0
"""Batches for training: what step N sees depends on the seed and on N alone, so a run that is resumed sees the same."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

from .augment import Augmentation, augment
from .samples import Bounds, Pair, read

_READERS, _AHEAD = 2, 3  # threads; OpenCV works outside the interpreter's lock


@dataclass(frozen=True)
class Batch:
    """Images (H, W, 3) uint8 RGB as they were drawn, and depth (B, h, w) float32 metres at the network's grid, NaN invalid."""

    images: list[np.ndarray]
    depth: np.ndarray


@dataclass(frozen=True)
class Draws:
    """Where batches come from. `size`: (width, height) of the network's input; `seed`: of order and augmentation."""

    pairs: Sequence[Pair]
    bounds: Bounds
    augmentation: Augmentation
    size: tuple[int, int]
    batch: int
    seed: int = 0

    def at(self, step: int) -> Batch:
        """The batch of a step. Every pair is drawn once before any is drawn again."""
        images, depths = [], []
        for place in range(step * self.batch, (step + 1) * self.batch):
            epoch, index = divmod(place, len(self.pairs))
            order = np.random.default_rng((self.seed, 0, epoch)).permutation(len(self.pairs))
            rgb, depth = read(self.pairs[order[index]])
            rgb, depth = augment(rgb, depth, self.augmentation, np.random.default_rng((self.seed, 1, place)))
            images.append(rgb)
            depths.append(on_grid(np.where(self.bounds.valid(depth), depth, np.nan), self.size))
        return Batch(images, np.stack(depths))

    def from_step(self, step: int, end: int) -> Iterator[Batch]:
        """The batches of `step` up to before `end`, read ahead."""
        waiting: deque[Future[Batch]] = deque()
        with ThreadPoolExecutor(_READERS) as pool:
            try:
                for each in range(step, end + _AHEAD):
                    if each < end:
                        waiting.append(pool.submit(self.at, each))
                    if each >= step + _AHEAD:
                        yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()


def on_grid(depth: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Depth (h, w) at another grid of (width, height): each pixel gets the one at its centre, so that no depth is made up."""
    return cv2.resize(np.float32(depth), size, interpolation=cv2.INTER_NEAREST_EXACT)
