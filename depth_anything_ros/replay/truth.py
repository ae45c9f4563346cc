# SPDX-License-Identifier: Apache-2.0
"""Depth images of a bag, each with what a depth sensor says of the same pixels at the same time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sensor_msgs.msg import CameraInfo

from ..geometry import CameraError, TransformError
from ..messages.camera_info import camera_from_info
from ..messages.cdr import MessageError, RawImage, read_image
from ..messages.ranges import depth_pixels, depth_points
from ..stream.logs import SENSOR_TYPES, info_topic_of
from .bag_input import BagInput
from .cameras import IMAGE, CameraTopics
from .evaluation import Evaluation, truth_image
from .messages import BagError, Recorded
from .pairs import Pairs, depth_images

_POINTS = ("sensor_msgs/msg/PointCloud2", "sensor_msgs/msg/LaserScan")
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
        pairs: the images, with the truth beside each.
        ways: how images were compared, in words.
    """

    def __init__(self, bag: BagInput, selection: Selection):
        self.bag, self.selection = bag, selection
        self.depth = _depth_topic(bag, selection.depth)
        self.truth, self.others = _truth_topic(bag, self.depth, selection.truth)
        self.evaluation = Evaluation(selection.min_depth, selection.max_depth)
        self.ways: set[str] = set()
        self._camera = CameraTopics(self.depth, False, info_topic_of(self.depth))
        self.pairs = Pairs(bag, self._camera, self.truth, selection.max_offset, selection.transforms)

    def all(self) -> None:
        """Compare all that the options ask for."""
        for recorded in self.pairs.images(self.selection.start, self.selection.end, self.selection.every):
            try:
                self._compare(recorded)
            except (MessageError, CameraError, TransformError) as error:
                self.pairs.leave_out(error)

    def _compare(self, recorded: Recorded) -> None:
        image = read_image(recorded.cdr)
        stamp_ns, depth = image.header.stamp_ns, depth_pixels(image)
        truth = self._truth_of(image, self.pairs.nearest(stamp_ns))
        if self.evaluation.add(stamp_ns, (recorded.time_ns - self.bag.start_ns) / 1e9, depth, truth) is None:
            raise MessageError(f"nothing of '{self.truth}' lies in the image, within the bounds of depth")

    def _truth_of(self, depth: RawImage, cdr: bytes) -> np.ndarray:
        """(H, W) metres on the depth image's pixels, NaN, Inf or <= 0 where there is none."""
        info = self.pairs.context.info_at(self._camera, depth.header.stamp_ns)
        if self.pairs.gives_images:
            image = self.pairs.image(cdr)
            other = self.pairs.context.info_at(self.pairs.sensor, image.header.stamp_ns)
            if _shape(image) == _shape(depth) and _same_view(info, other):
                self.ways.add("pixel by pixel")
                return depth_pixels(image)
        if info is None:
            raise CameraError(f"no camera_info on '{self._camera.camera_info}'")
        camera = camera_from_info(info, depth.width, depth.height, rectified=False, frame_id=depth.header.frame_id)
        if self.pairs.gives_images:
            if other is None:
                raise CameraError(f"no camera_info on '{self.pairs.sensor.camera_info}'")
            source, points = image.header.frame_id, depth_points(image, other)
        else:
            source, points = self.pairs.points(cdr)
        points = self.pairs.in_frame(points, depth.header.frame_id, source, depth.header.stamp_ns)
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
    first, images, found = _first_image(bag, depth), depth_images(bag), []
    for name, topic in sorted(bag.topics.items()):
        if name.startswith(ours) or (len(node) > 1 and name.startswith(node)):
            continue
        if topic.type in _POINTS:
            found.append((_POINTS.index(topic.type) + 2, name))
        elif name in images and "/depth_anything/" not in name and not any(word in name for word in _NO_TRUTH):
            found.append((0 if first and _shape(images[name]) == _shape(first) else 1, name))
    if not found:
        raise BagError(f"no depth sensor was found beside '{depth}': no depth image, cloud or scan; {_there(bag)}")
    names = [name for _, name in sorted(found)]
    return names[0], names[1:]


def _there(bag: BagInput) -> str:
    return "the bag's topics are: " + ", ".join(f"{name} ({topic.type})" for name, topic in sorted(bag.topics.items()))
