# SPDX-License-Identifier: Apache-2.0
"""What a film and a report of a finished bag have in common: images met by their depths, depth read, depth in colours.

It only reads bags, whoever wrote the depth: `depth_bag`, or a recorder beside a live node.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from ..geometry import AdaptiveRange, colorize
from ..messages.cdr import MessageError, read_compressed_image, read_header, read_image
from ..messages.images import compressed_to_rgb, image_to_rgb
from ..messages.ranges import depth_pixels
from ..outputs import ColorSettings
from .bag_input import BagInput
from .cameras import COMPRESSED, IMAGE
from .messages import BagError, Recorded

_WAIT_NS = 5_000_000_000  # record time, after which a depth does not come any more: no node is that slow
_MOST_WAITING = 100  # images of a camera; the depth of a live node comes later than some of the next
_MOST_EARLY = 32  # depths whose image was not recorded yet
_MOST_PROBLEMS = 50  # different ones
_SAMPLES = 60  # depth images that a range is chosen from


@dataclass(frozen=True)
class Pair:
    """An image topic, and the depth that was made of it.

    Attributes:
        camera: a name for people; empty: the image topic is its name.
        image: topic of Image or CompressedImage.
        depth: topic of Image: 32FC1 metres or 16UC1 millimetres; or, if `relative`, 32FC1 inverse depth without a unit.
        every: of each n-th image, from the first on; the others are not looked at.
    """

    camera: str
    image: str
    depth: str
    relative: bool = False
    every: int = 1

    @property
    def name(self) -> str:
        """For people."""
        return self.camera or self.image

    @property
    def scale(self) -> str:
        """Topic of what the depth's scale is (DiagnosticArray); it need not be there."""
        return f"{self.depth.rpartition('/')[0]}/scale"


@dataclass
class Shot:
    """An image, and its depth.

    Attributes:
        stamp_ns: of both headers.
        time_ns: at which the image was recorded.
        image, depth: what was made of the messages; None: it cannot be read, or there is none.
    """

    pair: Pair
    stamp_ns: int
    time_ns: int
    image: object | None
    depth: object | None = None
    settled: bool = False


class Shots:
    """The images of some cameras as they were recorded, each with the depth of the same stamp. To be iterated over once.

    Of a message, only what `of_image` and `of_depth` make of it is kept, until the image's depth has come, or that of a later
    image, or it has been waited for long enough.

    Attributes:
        strays: depths without an image, by pair; complete at the end.
        problems: what could not be read, in words, and how often; complete at the end.
    """

    def __init__(
        self,
        bags: tuple[BagInput, BagInput],
        pairs: Sequence[Pair],
        of_image: Callable[[Pair, Recorded], object],
        of_depth: Callable[[Pair, Recorded], object],
        others: Mapping[str, Callable[[Recorded], None]] | None = None,
    ):
        """Prepare to read.

        Args:
            bags: that of the images, and that of the depths; may be the same.
            of_image, of_depth: may raise MessageError.
            others: more topics of the depths' bag, and who is to have their messages.

        Raises:
            BagError: no pairs, or a topic is not what it is said to be.
        """
        _check(*bags, pairs)
        self.strays: Counter[Pair] = Counter()
        self.problems: Counter[str] = Counter()
        self._bags, self._of_image, self._of_depth, self._others = bags, of_image, of_depth, dict(others or {})
        self._by_image, self._by_depth = defaultdict(list), defaultdict(list)
        for pair in pairs:
            self._by_image[pair.image].append(pair)
            self._by_depth[pair.depth].append(pair)
        self._images: Counter[str] = Counter()
        self._queue: deque[Shot] = deque()  # in the order of recording
        self._waiting: dict[Pair, deque[Shot]] = {pair: deque() for pair in pairs}  # those of it without depth yet
        self._early: dict[Pair, dict[int, object]] = {pair: {} for pair in pairs}

    def __iter__(self) -> Iterator[Shot]:
        images = ((each, False) for each in self._bags[0].messages(topics=set(self._by_image)))
        depths = ((each, True) for each in self._bags[1].messages(topics={*self._by_depth, *self._others}))
        most = _MOST_WAITING * len(self._waiting)
        for recorded, is_depth in heapq.merge(images, depths, key=lambda each: each[0].time_ns):  # of a tie, images first
            self._images[recorded.topic] += not is_depth
            try:
                if is_depth and recorded.topic in self._others:
                    self._others[recorded.topic](recorded)
                    continue
                stamp_ns = read_header(recorded.cdr).stamp_ns
            except MessageError as error:
                self._note(recorded, error)
                continue
            for pair in (self._by_depth if is_depth else self._by_image)[recorded.topic]:
                (self._take_depth if is_depth else self._take_image)(pair, recorded, stamp_ns)
            while self._queue and (
                self._queue[0].settled or recorded.time_ns - self._queue[0].time_ns > _WAIT_NS or len(self._queue) > most
            ):
                yield self._release()
        while self._queue:
            yield self._release()
        for pair, early in self._early.items():
            self.strays[pair] += len(early)

    def _take_image(self, pair: Pair, recorded: Recorded, stamp_ns: int) -> None:
        if (self._images[pair.image] - 1) % pair.every:
            return
        shot = Shot(pair, stamp_ns, recorded.time_ns, self._read(self._of_image, pair, recorded))
        self._queue.append(shot)
        self._waiting[pair].append(shot)
        if stamp_ns in self._early[pair]:
            self._settle(shot, self._early[pair].pop(stamp_ns))

    def _take_depth(self, pair: Pair, recorded: Recorded, stamp_ns: int) -> None:
        made = self._read(self._of_depth, pair, recorded)
        shot = next((shot for shot in self._waiting[pair] if shot.stamp_ns == stamp_ns), None)
        if shot:
            self._settle(shot, made)
            return
        early = self._early[pair]
        self.strays[pair] += stamp_ns in early
        early[stamp_ns] = made
        if len(early) > _MOST_EARLY:
            del early[next(iter(early))]
            self.strays[pair] += 1

    def _settle(self, shot: Shot, depth: object) -> None:
        """Depths come in the order of their images: those before this one have none."""
        shot.depth = depth
        waiting = self._waiting[shot.pair]
        while True:
            first = waiting.popleft()
            first.settled = True
            if first is shot:
                return

    def _release(self) -> Shot:
        shot = self._queue.popleft()
        if not shot.settled:
            self._waiting[shot.pair].popleft()
        return shot

    def _read(self, read: Callable[[Pair, Recorded], object], pair: Pair, recorded: Recorded) -> object:
        try:
            return read(pair, recorded)
        except MessageError as error:
            self._note(recorded, error)
            return None

    def _note(self, recorded: Recorded, error: Exception) -> None:
        text = f"'{recorded.topic}': {error}"
        if text in self.problems or len(self.problems) < _MOST_PROBLEMS:
            self.problems[text] += 1


def read_rgb(bag: BagInput, recorded: Recorded) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a recorded image, raw or compressed; it may be a view of the message.

    Raises:
        MessageError: it cannot be read.
    """
    if bag.topics[recorded.topic].type == COMPRESSED:
        return compressed_to_rgb(read_compressed_image(recorded.cdr))
    return image_to_rgb(read_image(recorded.cdr))


def read_depth(pair: Pair, recorded: Recorded) -> np.ndarray:
    """(H, W) float32 metres, or inverse depth of a relative pair; NaN: invalid, however the message says so.

    Raises:
        MessageError: no depth image, or less data than rows.
    """
    depth = depth_pixels(read_image(recorded.cdr))
    valid = np.isfinite(depth) if pair.relative else np.isfinite(depth) & (depth > 0)
    return np.where(valid, depth, np.float32(np.nan))


def choose_range(depths: BagInput, pairs: Sequence[Pair]) -> ColorSettings:
    """Colours that span most of what a bag holds: 2nd to 98th percentile of a sample; 0 to 10 m where there are no metres.

    It takes a pass through the depths.
    """
    metric = {pair.depth: pair for pair in pairs if not pair.relative}
    seen: Counter[str] = Counter()
    sample = []
    for recorded in depths.messages(topics=set(metric)) if metric else ():
        seen[recorded.topic] += 1
        if seen[recorded.topic] % max(1, depths.counts.get(recorded.topic, 0) // _SAMPLES) == 0:
            try:
                values = read_depth(metric[recorded.topic], recorded)[::4, ::4]
            except MessageError:  # whoever shows the depths says so
                continue
            sample.append(values[np.isfinite(values)])
    sample = np.concatenate(sample) if sample else np.empty(0)
    if not sample.size:
        return ColorSettings()
    near, far = (float(each) for each in np.percentile(sample, (2, 98)))
    return ColorSettings(near=near, far=max(far, near + 0.1))


class Painter:
    """Depth of one pair in colours: metres by a fixed range, inverse depth by one that adapts slowly; near is bright."""

    def __init__(self, pair: Pair, color: ColorSettings):
        self._color, self._range = color, AdaptiveRange() if pair.relative else None
        self.ends = ("far", "near") if pair.relative else (f"{color.near:.3g} m", f"{color.far:.3g} m")

    def paint(self, values: np.ndarray) -> np.ndarray:
        """(H, W) float32 -> (H, W, 3) uint8 BGR, invalid pixels black. Frames in order."""
        values = torch.from_numpy(np.ascontiguousarray(values))
        if self._range is None:
            return colorize(values, self._color.near, self._color.far, self._color.colormap)
        low, high = self._range.update(values)
        return colorize(values, high, low, self._color.colormap)

    def bar(self, width: int, height: int) -> np.ndarray:
        """(height, width, 3) uint8 BGR: the colours from the first of `ends` to the second."""
        near, far = (1.0, 0.0) if self._range is not None else (0.0, 1.0)
        steps = torch.linspace(0, 1, width).repeat(height, 1)
        return colorize(steps, near, far, self._color.colormap)


def fitted(picture: np.ndarray, width: int, height: int, nearest: bool = False) -> np.ndarray:
    """A picture or depth image made as large as fits into width x height, its aspect kept; `nearest`: values are not mixed."""
    scale = min(width / picture.shape[1], height / picture.shape[0])
    size = max(1, min(width, round(picture.shape[1] * scale))), max(1, min(height, round(picture.shape[0] * scale)))
    smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST if nearest else smooth)


def _check(images: BagInput, depths: BagInput, pairs: Sequence[Pair]) -> None:
    if not pairs:
        raise BagError("there is no camera to show: expected one pair of an image and a depth topic at least")
    for pair in pairs:
        for bag, name, kinds in ((images, pair.image, (IMAGE, COMPRESSED)), (depths, pair.depth, (IMAGE,))):
            topic = bag.topics.get(name)
            if topic and topic.type not in kinds:
                raise BagError(f"'{name}' of '{bag.path}' is a {topic.type}, expected {' or '.join(kinds)}")
