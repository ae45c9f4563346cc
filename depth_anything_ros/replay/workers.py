# SPDX-License-Identifier: Apache-2.0
"""Processes on this machine that do as they are told. One that dies is replaced, and its work done again."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from multiprocessing.connection import Connection, wait

import torch

from .messages import BagError

TRIES = 3
_GRACE = 2.0  # seconds
_CONTEXT = multiprocessing.get_context("spawn")  # a fork would inherit locks of torch's threads


class Workers:
    """Each process has a thread here that attends to it; whichever is free takes the next work.

    Args:
        begin: called first in each process, with its place and the number of all; it has to be importable.
    """

    def __init__(self, count: int, begin: Callable[[int, int], None]):
        self._count, self._begin = count, begin
        self._work: queue.Queue = queue.Queue()
        self._processes: dict[int, multiprocessing.Process] = {}
        self._closing = False
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._attend, args=(place,), daemon=True) for place in range(count)]
        for thread in self._threads:
            thread.start()

    def submit(self, function: Callable, *arguments) -> Future:
        """What the function returns or raises in one of the processes; a BagError if that dies of it again and again."""
        answer: Future = Future()
        self._work.put((function, arguments, answer))
        return answer

    def close(self) -> None:
        """End the processes, whatever they are doing."""
        with self._lock:
            self._closing = True
        for _ in self._threads:
            self._work.put(None)
        end = time.monotonic() + _GRACE  # those that have nothing to do end by themselves, and tidily
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        for process in self._processes.values():
            process.join(max(0.0, end - time.monotonic()))
            process.terminate()
        for thread in self._threads:
            thread.join()

    def _attend(self, place: int) -> None:
        pipe: Connection | None = None
        while (work := self._work.get()) is not None and not self._closing:
            function, arguments, answer = work
            for _ in range(TRIES):
                try:
                    pipe = pipe or self._start(place)
                    pipe.send((function, arguments))
                    done, value = pipe.recv()
                except (EOFError, OSError):  # it has died
                    pipe = None
                    continue
                except Exception as error:  # what cannot be pickled
                    done, value = False, error
                answer.set_result(value) if done else answer.set_exception(value)
                break
            else:
                how = "was ended with us" if self._closing else f"died {TRIES} times of the same work: is the memory enough?"
                answer.set_exception(BagError(f"a worker process {how}"))
        if pipe:
            pipe.close()

    def _start(self, place: int) -> Connection:
        ours, theirs = _CONTEXT.Pipe()
        process = _CONTEXT.Process(target=_serve, args=(theirs, self._begin, place, self._count), daemon=True)
        with self._lock:
            if self._closing:
                raise EOFError
            process.start()
            self._processes[place] = process
        theirs.close()  # so that we hear when it dies
        return ours


def _serve(pipe: Connection, begin: Callable[[int, int], None], place: int, count: int) -> None:
    """The life of a worker process. It ends with the one that it works for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # that one deals with it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        begin(place, count)
        unfit = None
    except Exception as error:
        unfit = error
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        try:
            answer = (False, unfit) if unfit else (True, function(*arguments))
        except Exception as error:
            answer = (False, error)
        try:
            pipe.send(answer)
        except (TypeError, AttributeError, ValueError):  # what cannot be pickled
            pipe.send((False, RuntimeError(str(answer[1]))))


def _end_with_parent() -> None:
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def take_share(place: int, count: int) -> None:
    """Give this process, the `place`-th of `count` workers, its part of the machine: of the threads, and one of the GPUs."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // count))
    gpus = torch.cuda.device_count()  # does not touch them
    if gpus > 1:
        said = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        names = said.split(",") if said else [str(number) for number in range(gpus)]
        with contextlib.suppress(IndexError):
            os.environ["CUDA_VISIBLE_DEVICES"] = names[place % gpus]
