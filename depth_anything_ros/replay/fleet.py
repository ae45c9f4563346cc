# SPDX-License-Identifier: Apache-2.0
"""Many bags on many workers: processes of this machine, or a Ray cluster. A bag whose worker dies is gone on with by another.

With fewer bags than workers, bags come one after the other, and the batches of each are spread: see `predictors`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, as_completed
from contextlib import closing

from ..inference import Prediction
from .messages import BagError
from .predictors import Network, Recipe, Shown, batch_size, hand_over, packed
from .workers import TRIES, Workers, take_share

Task = Callable[[], int]  # makes one bag, going on with what is there; picklable


def on_processes(tasks: Sequence[Task], workers: int) -> Iterator[tuple[int, int | Exception]]:
    """(number of the task, what came of it), as they end."""
    with closing(Workers(workers, take_share)) as processes:
        numbers = {processes.submit(task): number for number, task in enumerate(tasks)}
        for future in as_completed(numbers):
            yield numbers[future], future.exception() or future.result()


def on_ray(tasks: Sequence[Task], address: str, workers: int) -> Iterator[tuple[int, int | Exception]]:
    """The same on a Ray cluster; paths have to be the same on all of its machines."""
    ray = _ray(address)
    share = _share(ray, workers or len(tasks), True)
    run = ray.remote(max_retries=TRIES - 1, **share)(_run)
    numbers = {run.remote(task): number for number, task in enumerate(tasks)}
    while numbers:
        (reference,), _ = ray.wait(list(numbers), num_returns=1)
        number = numbers.pop(reference)
        try:
            yield number, ray.get(reference)
        except Exception as error:
            yield number, getattr(error, "cause", None) or error


def _run(task: Task) -> int:
    return task()


class RayActors:
    """A `Predictor`: one network in each of several actors, which Ray starts anew where one dies, and does its batch again."""

    def __init__(self, recipe: Recipe, address: str, workers: int, batch: int):
        ray = self._ray = _ray(address)
        gpu = recipe.network.device.startswith(("auto", "cuda"))
        count = workers or int(ray.cluster_resources().get("GPU", 0) if gpu else 0) or 1
        self.batch, self.ahead = batch_size(recipe, batch), 2 * count
        kind = ray.remote(max_restarts=TRIES - 1, max_task_retries=TRIES - 1, **_share(ray, count, gpu))(_Actor)
        self._actors = [kind.remote(recipe) for _ in range(count)]
        self._turns = itertools.cycle(self._actors)

    def submit(self, shown: Sequence[Shown], input_size: int) -> Future[list[Prediction | str]]:
        """See `Predictor`."""
        answer: Future[list[Prediction | str]] = Future()
        next(self._turns).predict.remote(list(shown), input_size).future().add_done_callback(
            lambda future: hand_over(future, answer)
        )
        return answer

    def close(self) -> None:
        """See `Predictor`."""
        for actor in self._actors:
            self._ray.kill(actor)


class _Actor:
    def __init__(self, recipe: Recipe):
        self._network = Network(recipe, print)

    def predict(self, shown: Sequence[Shown], input_size: int) -> list[tuple]:
        return [packed(result) for result in self._network.predict(shown, input_size)]


def _ray(address: str):
    """Ray, connected.

    Raises:
        BagError: it is not installed, or there is no cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise BagError("--ray needs Ray: pip install 'ray>=2.9'") from error
    if not ray.is_initialized():
        try:
            ray.init(address=address, include_dashboard=False if address == "local" else None, logging_level="warning")
        except (ConnectionError, ValueError) as error:
            raise BagError(f"no Ray cluster at '{address}': {str(error).splitlines()[0]}") from error
    return ray


def _share(ray, workers: int, gpu: bool) -> dict[str, float]:
    """What of the cluster one worker takes: one GPU where there are any, else its part of the CPUs."""
    resources = ray.cluster_resources()
    if gpu and resources.get("GPU"):
        return {"num_gpus": 1}
    return {"num_cpus": max(1, int(resources.get("CPU", 1)) // workers)}
