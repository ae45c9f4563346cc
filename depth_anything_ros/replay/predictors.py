# SPDX-License-Identifier: Apache-2.0
"""Who runs the network: this process, several on this machine, or a Ray cluster. All of them answer with futures.

Inference has no memory, so that it does not matter who does which batch. All else stays in one process, in order.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

from ..inference import DepthEstimator, Prediction, keep_large_buffers, make_deterministic, normalize_exposure
from ..stream.network import load, located
from ..stream.settings import NetworkSettings, Settings
from .workers import Workers, take_share

_Log = Callable[[str], None]


@dataclass(frozen=True)
class Recipe:
    """What decides what the network says of an image."""

    network: NetworkSettings
    confidence: bool
    normalize_exposure: bool
    deterministic: bool

    @staticmethod
    def of(settings: Settings) -> Recipe:
        """The recipe of settings."""
        return Recipe(settings.network, settings.confidence, settings.normalize_exposure, settings.deterministic)


class Predictor(Protocol):
    """Takes batches of images; closes."""

    batch: int  # images that go through the network together
    ahead: int  # batches that should be under way at once

    def submit(self, images: Sequence[np.ndarray], input_size: int) -> Future[list[Prediction | str]]:
        """Predict images (H, W, 3) uint8 that make network inputs of one size; for each, what is the matter if it failed."""

    def close(self) -> None:
        """Let go of the network."""


class Network:
    """A loaded network that does what a recipe says."""

    def __init__(self, recipe: Recipe, log: _Log):
        keep_large_buffers()
        make_deterministic(recipe.deterministic)
        self.recipe = recipe
        self.estimator: DepthEstimator = load(recipe.network, located(recipe.network), log)

    def predict(self, images: Sequence[np.ndarray], input_size: int) -> list[Prediction | str]:
        """See `Predictor.submit`. One image that fails does not cost the others theirs."""
        estimator = self.estimator.with_input_size(input_size) if input_size else self.estimator
        shown = [normalize_exposure(image) for image in images] if self.recipe.normalize_exposure else images
        try:
            return list(estimator.predict_batch(shown, self.recipe.confidence))
        except Exception as error:
            if len(images) == 1:
                return [str(error)]
        return [result for image in images for result in self.predict([image], input_size)]


def batch_size(recipe: Recipe, asked: int = 0) -> int:
    """Images of one pass: as asked; else several on a GPU, where they cost less than one after the other."""
    if recipe.deterministic:
        return 1
    return asked or (8 if recipe.network.device.startswith(("auto", "cuda")) and torch.cuda.is_available() else 1)


class Here:
    """The network in this process, on a thread of its own."""

    def __init__(self, recipe: Recipe, batch: int, log: _Log):
        self.batch, self.ahead = batch_size(recipe, batch), 2
        self._thread = ThreadPoolExecutor(1, "network")
        self.network = self._thread.submit(Network, recipe, log).result()

    def submit(self, images: Sequence[np.ndarray], input_size: int) -> Future[list[Prediction | str]]:
        """See `Predictor`."""
        return self._thread.submit(self.network.predict, images, input_size)

    def close(self) -> None:
        """See `Predictor`."""
        self._thread.shutdown(cancel_futures=True)


# -- in other processes ---------------------------------------------------------------------------------------------

_network: Network | None = None  # of a worker process


def packed(result: Prediction | str) -> tuple[Prediction | str, np.ndarray | None, np.ndarray | None]:
    """A prediction in parts that travel between processes as plain bytes."""
    if isinstance(result, str):
        return result, None, None
    confidence = None if result.confidence is None else result.confidence.cpu().numpy()
    return replace(result, tensor=None, confidence=None), result.values, confidence


def unpacked(parts: tuple) -> Prediction | str:
    """The way back."""
    result, values, confidence = parts
    if isinstance(result, str):
        return result
    confidence = None if confidence is None else torch.from_numpy(confidence.copy())
    return replace(result, tensor=torch.from_numpy(values.copy()), confidence=confidence)


def hand_over(future: Future, answer: Future) -> None:
    """Let `answer` be what `future` has come to, with the predictions unpacked."""
    error = future.exception()
    if error:
        answer.set_exception(error)
    else:
        answer.set_result([unpacked(parts) for parts in future.result()])


def _begin(recipe: Recipe, place: int, count: int) -> None:
    global _network
    take_share(place, count)
    _network = Network(recipe, print)


def _work(images: Sequence[np.ndarray], input_size: int) -> list[tuple]:
    return [packed(result) for result in _network.predict(images, input_size)]


class Processes:
    """One network in each of several processes on this machine."""

    def __init__(self, recipe: Recipe, workers: int, batch: int):
        self.batch, self.ahead = batch_size(recipe, batch), 2 * workers
        self._workers = Workers(workers, functools.partial(_begin, recipe))

    def submit(self, images: Sequence[np.ndarray], input_size: int) -> Future[list[Prediction | str]]:
        """See `Predictor`."""
        answer: Future[list[Prediction | str]] = Future()
        self._workers.submit(_work, list(images), input_size).add_done_callback(lambda future: hand_over(future, answer))
        return answer

    def close(self) -> None:
        """See `Predictor`."""
        self._workers.close()
