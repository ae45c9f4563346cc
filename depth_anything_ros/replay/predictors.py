# SPDX-License-Identifier: Apache-2.0
"""Who runs the network: this process, several on this machine, or a Ray cluster. All of them answer with futures.

Inference has no memory, so that it does not matter who does which batch. All else stays in one process, in order.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Protocol

import numpy as np
import torch

from ..inference import (
    DepthEstimator,
    Features,
    Focal,
    Prediction,
    keep_large_buffers,
    make_deterministic,
    normalize_exposure,
)
from ..stream.network import load, located
from ..stream.settings import NetworkSettings, Settings
from ..stream.topics import needs_of
from .workers import Workers, take_share

_Log = Callable[[str], None]


@dataclass(frozen=True)
class Recipe:
    """What decides what the network says of an image."""

    network: NetworkSettings
    confidence: bool
    features: bool
    normalize_exposure: bool
    deterministic: bool

    @staticmethod
    def of(settings: Settings, topics: Collection[str]) -> Recipe:
        """The recipe of settings, for outputs on these topics."""
        features = any("features" in needs_of(topic, settings.outputs) for topic in topics)
        return Recipe(settings.network, settings.confidence, features, settings.normalize_exposure, settings.deterministic)


Shown = tuple[np.ndarray, Focal | None]  # (H, W, 3) uint8 RGB, and its focal lengths in pixels, if they are known


class Predictor(Protocol):
    """Takes batches of images; closes."""

    batch: int  # images that go through the network together
    ahead: int  # batches that should be under way at once

    def submit(self, shown: Sequence[Shown], input_size: int) -> Future[list[Prediction | str]]:
        """Predict images that make network inputs of one size; for each, what is the matter if it failed."""

    def close(self) -> None:
        """Let go of the network."""


class Network:
    """A loaded network that does what a recipe says."""

    def __init__(self, recipe: Recipe, log: _Log):
        keep_large_buffers()
        make_deterministic(recipe.deterministic)
        self.recipe = recipe
        self.estimator: DepthEstimator = load(recipe.network, located(recipe.network), log)

    def predict(self, shown: Sequence[Shown], input_size: int) -> list[Prediction | str]:
        """See `Predictor.submit`. One image that fails does not cost the others theirs."""
        estimator = self.estimator.with_input_size(input_size) if input_size else self.estimator
        images, focals = zip(*shown)
        if self.recipe.normalize_exposure:
            images = [normalize_exposure(image) for image in images]
        try:
            return list(estimator.predict_batch(images, focals, self.recipe.confidence, self.recipe.features))
        except Exception as error:
            if len(shown) == 1:
                return [str(error)]
        return [result for one in shown for result in self.predict([one], input_size)]


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

    def submit(self, shown: Sequence[Shown], input_size: int) -> Future[list[Prediction | str]]:
        """See `Predictor`."""
        return self._thread.submit(self.network.predict, shown, input_size)

    def close(self) -> None:
        """See `Predictor`."""
        self._thread.shutdown(cancel_futures=True)


# -- in other processes ---------------------------------------------------------------------------------------------

_network: Network | None = None  # of a worker process


def packed(result: Prediction | str) -> tuple[Prediction | str, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A prediction in parts that travel between processes as plain bytes: arrays of its own, and of its features."""
    if isinstance(result, str):
        return result, {}, {}
    mine, features = _arrays(result), {}
    if result.features:
        features = _arrays(result.features)
        result = replace(result, features=replace(result.features, **dict.fromkeys(features)))
    return replace(result, **dict.fromkeys(mine)), mine, features


def _arrays(holder: Prediction | Features) -> dict[str, np.ndarray]:
    """Field -> array, of the fields that are tensors."""
    values = {field.name: getattr(holder, field.name) for field in fields(holder)}
    return {name: value.cpu().numpy() for name, value in values.items() if isinstance(value, torch.Tensor)}


def unpacked(parts: tuple) -> Prediction | str:
    """The way back."""
    result, mine, features = parts
    if isinstance(result, str):
        return result
    mine, features = ({name: torch.from_numpy(array.copy()) for name, array in part.items()} for part in (mine, features))
    return replace(result, **mine, features=result.features and replace(result.features, **features))


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


def _work(shown: Sequence[Shown], input_size: int) -> list[tuple]:
    return [packed(result) for result in _network.predict(shown, input_size)]


class Processes:
    """One network in each of several processes on this machine."""

    def __init__(self, recipe: Recipe, workers: int, batch: int):
        self.batch, self.ahead = batch_size(recipe, batch), 2 * workers
        self._workers = Workers(workers, functools.partial(_begin, recipe))

    def submit(self, shown: Sequence[Shown], input_size: int) -> Future[list[Prediction | str]]:
        """See `Predictor`."""
        answer: Future[list[Prediction | str]] = Future()
        self._workers.submit(_work, list(shown), input_size).add_done_callback(lambda future: hand_over(future, answer))
        return answer

    def close(self) -> None:
        """See `Predictor`."""
        self._workers.close()
