# SPDX-License-Identifier: Apache-2.0
"""The messages of a bag in order, each image among them prepared, and on its way through the network."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Generic, TypeVar

from ..geometry import CameraError
from ..inference import ImageError, Prediction
from ..messages.bridge import ImageDecoder
from ..messages.cdr import MessageError
from ..pipeline import Side
from ..stream.focal import check_focal
from ..stream.image import PreparedImage, decode, prepare_image
from ..stream.network import input_of
from ..stream.side import side_of
from .feed import Context, looked_ahead
from .messages import TF_STATIC, Recorded
from .plan import Plan
from .predictors import Predictor
from .room import Room

_MOST_WAITING = 64 << 20  # bytes of other messages, after which a batch that is not full is not waited for
T = TypeVar("T")


@dataclass
class Job:
    """An image that is to get depth.

    Attributes:
        shape: what the images of a batch have in common: the camera's own input size (0: none), and the network's input.
        missing: which transform is missing, in words.
        answer: of the batch that the image is in; its own is the `place`-th.
    """

    camera: str
    image: PreparedImage
    shape: tuple[int, tuple[int, int]]
    side: Side
    missing: str
    answer: Future[list[Prediction | str]] = field(default_factory=Future)
    place: int = 0

    def prediction(self) -> Prediction | str:
        """What the network said, once it has; or what is the matter."""
        return self.answer.result()[self.place]


@dataclass(frozen=True)
class Item:
    """A message of the bag, in its turn.

    Attributes:
        job: the depth to be made of it; None: it is not an image, or not one of those that get any.
        refused: (camera, kind, text) why an image can have no depth; None: it can.
    """

    recorded: Recorded
    job: Job | None = None
    refused: tuple[str, str, str] | None = None

    @property
    def size(self) -> int:
        """About how many bytes it holds: the message, its image, and what the network says of it."""
        return len(self.recorded.cdr) + 200 + (3 * self.job.image.upright.nbytes if self.job else 0)


class Frames:
    """Reads a bag by its plan.

    Args:
        done: messages that were dealt with in an earlier run: they are taken in, but do not come again.
    """

    def __init__(self, plan: Plan, decode: ImageDecoder, done: int = 0):
        self.context = Context(plan.bag, plan.cameras.values(), plan.settings.transforms, plan.settings.scale_topic)
        self._plan, self._decode, self._done = plan, decode, done
        self._names = {topics.image: name for name, topics in plan.cameras.items()}
        self._seen = dict.fromkeys(plan.cameras, 0)

    def items(self) -> Iterator[Item]:
        """Every message of the plan's span, by the order of the recording; before them, what was latched by then."""
        plan = self._plan
        only = {*self._names, *self.context.topics} if plan.request.only_depth else None
        latched = self._said_before()
        messages = looked_ahead(plan.bag.messages(plan.start_ns, plan.end_ns, only), self.context.add)
        for number, recorded in enumerate(chain(latched, messages)):
            name = self._names.get(recorded.topic)
            wanted = name is not None and self._seen[name] % plan.request.every == 0
            if name is not None:
                self._seen[name] += 1
            if number >= self._done:
                yield self._item(recorded, name) if wanted else Item(recorded)

    def _said_before(self) -> list[Recorded]:
        """Takes in what belongs to the first image and was recorded long before; gives what was latched, as of then."""
        plan, latched = self._plan, {topic.name for topic in self._plan.bag.topics.values() if topic.latched}
        kept: dict[object, Recorded] = {}
        if plan.start_ns > plan.bag.start_ns:
            for recorded in plan.bag.messages(plan.bag.start_ns, plan.start_ns, self.context.topics | latched):
                self.context.add(recorded)
                if recorded.topic in latched:  # of tf_static, each says something else
                    key = bytes(recorded.cdr) if recorded.topic.endswith(TF_STATIC) else recorded.topic
                    kept[key] = replace(recorded, time_ns=plan.start_ns)
        return [] if plan.request.only_depth else list(kept.values())

    def _item(self, recorded: Recorded, name: str) -> Item:
        plan, topics = self._plan, self._plan.cameras[name]
        try:
            header, rgb = decode(recorded.cdr, topics.compressed, self._decode)
            info = self.context.info_at(topics, header.stamp_ns)
            image = prepare_image(header, rgb, info, plan.settings.cameras[name], topics.image, topics.camera_info)
            check_focal(plan.settings.model, image)
            (height, width), input_size = image.upright.shape[:2], plan.settings.cameras[name].input_size
            shape = input_size, input_of(plan.settings, width, height, input_size)
        except (MessageError, ImageError) as error:
            return Item(recorded, refused=(name, "bad image", str(error)))
        except CameraError as error:
            return Item(recorded, refused=(name, "no view", str(error)))
        stamp_ns, frame_id = header.stamp_ns, image.header.frame_id
        side, missing = side_of(stamp_ns, frame_id, plan.settings, plan.topics, self.context.lookup, self.context.sensor)
        return Item(recorded, Job(name, image, shape, side, missing))


def submitted(items: Iterator[Item], predictor: Predictor) -> Iterator[Item]:
    """The same items, their images given to the network in batches of one size of input."""
    waiting: list[Item] = []
    jobs: list[Job] = []
    size = 0

    def send() -> list[Item]:
        nonlocal waiting, jobs, size
        if jobs:
            answer = predictor.submit([(job.image.upright, job.image.focal) for job in jobs], jobs[0].shape[0])
            for place, job in enumerate(jobs):
                job.answer, job.place = answer, place
        sent, waiting, jobs, size = waiting, [], [], 0
        return sent

    for item in items:
        if item.job:
            if jobs and jobs[0].shape != item.job.shape:
                yield from send()
            jobs.append(item.job)
        waiting.append(item)
        size += len(item.recorded.cdr)
        if not jobs or len(jobs) == predictor.batch or size > _MOST_WAITING:
            yield from send()
    yield from send()


class Ahead(Generic[T]):
    """What an iterator gives, worked out ahead on a thread of its own. Use it in a `with`.

    Args:
        size: bytes of an item.
        room: for those that wait.
    """

    def __init__(self, items: Iterator[T], size: Callable[[T], int], room: Room):
        self._items, self._size, self._room = items, size, room
        self._queue: queue.Queue = queue.Queue()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)

    def __enter__(self) -> Ahead[T]:
        self._thread.start()
        return self

    def __exit__(self, *exception) -> None:
        self._ended = True
        self._room.open()
        self._thread.join()

    def __iter__(self) -> Iterator[T]:
        while True:
            kind, value = self._queue.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
            self._room.give(self._size(value))

    def _run(self) -> None:
        try:
            for item in self._items:
                self._room.take(self._size(item))
                if self._ended:
                    return
                self._queue.put(("item", item))
            self._queue.put(("end", None))
        except BaseException as error:
            self._queue.put(("error", error))
