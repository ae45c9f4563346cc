# SPDX-License-Identifier: Apache-2.0
"""Depth images of a bag, each with what a depth sensor says of the same pixels at the same time."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, Image, LaserScan, PointCloud2

from ..geometry import CameraError
from ..messages.camera_info import camera_from_info
from ..messages.cdr import MessageError, RawImage, read_header, read_image
from ..messages.ranges import METRES, cloud_points, depth_pixels, depth_points, scan_points
from ..stream.logs import SENSOR_TYPES
from ..stream.transforms import parse_transforms
from .bag_input import BagInput
from .evaluation import Evaluation, truth_image
from .feed import IMAGE, LOOK_AHEAD_NS, CameraTopics, Context, looked_ahead
from .messages import BagError, Recorded

_KEPT_NS, _KEPT_BYTES = 10_000_000_000, 128 << 20  # a network that is slow stamps what it says long before it says it
_NO_TRUTH = ("relative", "confidence", "disparity", "mask", "label")  # in topics' names


@dataclass(frozen=True)
class Selection:
    """What of a bag is compared.

    Attributes:
        depth, truth: topics; empty: to be found.
        max_offset: seconds between the two stamps.
        transforms: see `stream.transforms.parse_transforms`.
        start, end: seconds from the bag's beginning.
        every: each n-th depth image.
        min_depth, max_depth: metres of truth that count.
    """

    depth: str = ""
    truth: str = ""
    max_offset: float = 0.05
    transforms: Sequence[str] = ()
    start: float = 0.0
    end: float = math.inf
    every: int = 1
    min_depth: float = 0.1
    max_depth: float = math.inf


class Comparison:
    """A pass through a bag.

    Attributes:
        depth, truth: topics; others: what could also be the truth.
        left_out: of depth images that were not compared, by kind: the first reason, and how many.
        ways: how images were compared, in words.
    """

    def __init__(self, bag: BagInput, selection: Selection):
        self.bag, self.selection = bag, selection
        self.depth = _depth_topic(bag, selection.depth)
        self.truth, self.others = _truth_topic(bag, self.depth, selection.truth)
        self.evaluation = Evaluation(selection.min_depth, selection.max_depth)
        self._depth_camera, self._truth_camera = (
            CameraTopics(name, False, name.rsplit("/", 1)[0] + "/camera_info") for name in (self.depth, self.truth)
        )
        cameras = [self._depth_camera, self._truth_camera]
        self.context = Context(bag, cameras, parse_transforms(selection.transforms))
        self.left_out: dict[str, tuple[str, int]] = {}
        self.ways: set[str] = set()
        self._kind = SENSOR_TYPES[bag.topics[self.truth].type]
        self._kept: deque[tuple[int, bytes]] = deque()
        self._bytes = 0

    def all(self) -> None:
        """Compare all that the options ask for."""
        begin, end = self.bag.start_ns + round(self.selection.start * 1e9), 2**62
        if math.isfinite(self.selection.end):
            end = self.bag.start_ns + round(self.selection.end * 1e9)
        before = max(self.bag.start_ns, begin - _KEPT_NS)
        for recorded in self.bag.messages(0, before, self._said_once()):
            self._keep(recorded)
        topics, number = {self.depth, self.truth, *self.context.topics}, 0
        for recorded in looked_ahead(self.bag.messages(before, end + LOOK_AHEAD_NS, topics), self._keep):
            if recorded.topic == self.depth and begin <= recorded.time_ns < end:
                if number % self.selection.every == 0:
                    self._compare(recorded)
                number += 1

    def _said_once(self) -> set[str]:
        """Topics that may have been published only when the recording began."""
        return {name for name in self.context.topics if name.endswith(("tf_static", "camera_info"))}

    def _keep(self, recorded: Recorded) -> None:
        self.context.add(recorded)
        if recorded.topic != self.truth:
            return
        try:
            stamp_ns = read_header(recorded.cdr).stamp_ns
        except MessageError as error:
            self.context.problems.add(f"'{self.truth}': {error}")
            return
        kept = self._kept
        if kept and stamp_ns < kept[-1][0] - 1_000_000_000:  # a bag that begins anew
            kept.clear()
            self._bytes = 0
        kept.append((stamp_ns, recorded.cdr))
        self._bytes += len(recorded.cdr)
        while len(kept) > 1 and (stamp_ns - kept[0][0] > _KEPT_NS or self._bytes > _KEPT_BYTES):
            self._bytes -= len(kept.popleft()[1])

    def _compare(self, recorded: Recorded) -> None:
        try:
            image = read_image(recorded.cdr)
            stamp_ns, depth = image.header.stamp_ns, depth_pixels(image)
            when, cdr = min(self._kept, key=lambda entry: abs(entry[0] - stamp_ns), default=(None, b""))
            if when is None or abs(when - stamp_ns) > self.selection.max_offset * 1e9:
                nearest = "there is none" if when is None else f"the nearest is {abs(when - stamp_ns) / 1e9:.3f} s away"
                raise LookupError(f"nothing on '{self.truth}' within {self.selection.max_offset:g} s ({nearest})")
            seconds = (recorded.time_ns - self.bag.start_ns) / 1e9
            if self.evaluation.add(stamp_ns, seconds, depth, self._truth_of(image, cdr)) is None:
                raise MessageError(f"nothing of '{self.truth}' lies in the image, within the bounds of depth")
        except (MessageError, CameraError, LookupError) as error:
            kind = re.sub(r"[\d.]+", "#", str(error))
            text, count = self.left_out.get(kind, (str(error), 0))
            self.left_out[kind] = text, count + 1

    def _message(self, cdr: bytes) -> PointCloud2 | LaserScan | Image:
        try:
            return deserialize_message(cdr, self._kind)
        except Exception as error:  # rclpy has its own kinds
            raise MessageError(f"a damaged message on '{self.truth}': {type(error).__name__}") from error

    def _truth_of(self, depth: RawImage, cdr: bytes) -> np.ndarray:
        """(H, W) metres on the depth image's pixels, NaN, Inf or <= 0 where there is none."""
        info = self.context.info_at(self._depth_camera, depth.header.stamp_ns)
        if self._kind is Image:
            image = read_image(cdr)
            other = self.context.info_at(self._truth_camera, image.header.stamp_ns)
            if _shape(image) == _shape(depth) and _same_view(info, other):
                self.ways.add("pixel by pixel")
                return depth_pixels(image)
        if info is None:
            raise CameraError(f"no camera_info on '{self._depth_camera.camera_info}'")
        camera = camera_from_info(info, depth.width, depth.height, rectified=False, frame_id=depth.header.frame_id)
        message = self._message(cdr)
        if self._kind is Image:
            if other is None:
                raise CameraError(f"no camera_info on '{self._truth_camera.camera_info}'")
            points = depth_points(message, other)
        else:
            points = scan_points(message) if self._kind is LaserScan else cloud_points(message)
        target, source = depth.header.frame_id, message.header.frame_id
        if target.lstrip("/") != source.lstrip("/"):
            points = self.context.lookup(target, source, depth.header.stamp_ns).apply(points)
        self.ways.add("its points projected")
        return truth_image(points, camera)


def _shape(image: RawImage) -> tuple[str, int, int]:
    return image.header.frame_id.lstrip("/"), image.width, image.height


def _same_view(info: CameraInfo | None, other: CameraInfo | None) -> bool:
    """Whether two images of one frame and size have the same pixels: to one pixel at the edge; so it is if nothing is said."""
    if info is None or other is None or not info.k[0] or not other.p[0]:
        return True
    turned = abs(info.k[0] / other.p[0] - 1) * info.width / 2 + abs(info.k[2] - other.p[2])
    return turned < 1 and abs(info.k[4] / other.p[5] - 1) * info.height / 2 + abs(info.k[5] - other.p[6]) < 1


def _first_image(bag: BagInput, name: str) -> RawImage | None:
    first = next(bag.messages(topics=[name]), None)
    try:
        return first and read_image(first.cdr)
    except MessageError:
        return None


def _depth_topic(bag: BagInput, said: str) -> str:
    """The topic of our depth.

    Raises:
        BagError: there is none, several, or not one in metres.
    """
    images = sorted(name for name, topic in bag.topics.items() if topic.type == IMAGE)
    relative = [name for name in ([said] if said else images) if name.endswith("/relative")]
    no_metres = "has inverse depth of unknown scale, which has no metres to compare: give depth_bag a metric model or a scale"
    if said:
        if said not in images:
            raise BagError(f"'{said}' is no topic of images in the bag; those are: {', '.join(images) or 'none'}")
        if relative:
            raise BagError(f"'{said}' {no_metres}")
        return said
    found = []
    for name in images:
        if name.endswith("depth/image") and name.rsplit("/", 1)[0] + "/camera_info" in bag.topics:
            first = _first_image(bag, name)
            found += [name] if first and first.encoding == "32FC1" else []
    found = [name for name in found if "depth_anything" in name.split("/")] or found  # drivers, too, use this name: REP-118
    if len(found) > 1:
        raise BagError(f"depth is on several topics, choose one by --depth: {', '.join(found)}")
    if not found and relative:
        raise BagError(f"'{relative[0]}' {no_metres}")
    if not found:
        raise BagError(f"there is no depth/image of 32FC1 with a camera_info beside it: say --depth; {_there(bag)}")
    return found[0]


def _truth_topic(bag: BagInput, depth: str, said: str) -> tuple[str, list[str]]:
    """The sensor's topic, and what else could be it: images of the same size and frame, other images, clouds, scans.

    Raises:
        BagError: there is none, or what was said is none.
    """
    if said:
        kind = bag.topics[said].type if said in bag.topics else ""
        if kind not in SENSOR_TYPES or said == depth:
            what = "is compared with itself" if said == depth else f"is {kind or 'not in the bag'}"
            raise BagError(f"'{said}' {what}, expected another depth image, a cloud or a scan; {_there(bag)}")
        return said, []
    ours, node = depth.rsplit("/", 1)[0] + "/", depth.removesuffix("depth/image")
    first, found = _first_image(bag, depth), []
    for name, topic in sorted(bag.topics.items()):
        if topic.type not in SENSOR_TYPES or name.startswith(ours) or (len(node) > 1 and name.startswith(node)):
            continue
        if topic.type != IMAGE:
            found.append((list(SENSOR_TYPES).index(topic.type) + 2, name))
        elif "depth" in name and "/depth_anything/" not in name and not any(word in name for word in _NO_TRUTH):
            image = _first_image(bag, name)
            if image and image.encoding in METRES:
                found.append((0 if first and _shape(image) == _shape(first) else 1, name))
    if not found:
        raise BagError(f"no depth sensor was found beside '{depth}': no depth image, cloud or scan; {_there(bag)}")
    names = [name for _, name in sorted(found)]
    return names[0], names[1:]


def _there(bag: BagInput) -> str:
    return "the bag's topics are: " + ", ".join(f"{name} ({topic.type})" for name, topic in sorted(bag.topics.items()))
