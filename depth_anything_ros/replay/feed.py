# SPDX-License-Identifier: Apache-2.0
"""Which topics of a bag are cameras, and what belongs to each image: calibration, transforms, a range sensor's points."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo

from ..geometry import Transform, TransformError, TransformTree
from ..messages.cdr import MessageError, read_image
from ..messages.images import pixels_of
from ..stream.image import complete_topics
from ..stream.logs import SENSOR_TYPES, InfoLog, SensorLog
from ..stream.settings import RESERVED_NAMES
from .bag_input import BagInput
from .messages import BagError, Recorded, typestore

LOOK_AHEAD_NS = 200_000_000
"""How much later something may have been recorded than the image that it belongs to."""

IMAGE, COMPRESSED, INFO = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/CameraInfo"
_TRANSFORMS = "tf2_msgs/msg/TFMessage"
_NO_CAMERA = ("depth", "disparity", "mask", "label", "segmentation", "semantic", "confidence", "infra")
# in the last names of topics of grey images that are no pictures, or not the ones that are meant


@dataclass(frozen=True)
class CameraTopics:
    """One camera of a bag: where its images are, and its calibration (which need not be there)."""

    image: str
    compressed: bool
    camera_info: str


def looked_ahead(messages: Iterable[Recorded], context: Callable[[Recorded], None]) -> Iterator[Recorded]:
    """The messages as they come, each after `context` has been told of all that was recorded until `LOOK_AHEAD_NS` later."""
    waiting: deque[Recorded] = deque()
    for recorded in messages:
        if waiting and recorded.time_ns < waiting[-1].time_ns - LOOK_AHEAD_NS:  # a clock that was set back
            yield from waiting
            waiting.clear()
        context(recorded)
        waiting.append(recorded)
        while recorded.time_ns - waiting[0].time_ns >= LOOK_AHEAD_NS:
            yield waiting.popleft()
    yield from waiting


def camera_topics(bag: BagInput, image: str, camera_info: str = "") -> CameraTopics:
    """The topics of a camera whose image topic is known; what is not said follows it by image_transport's convention.

    Raises:
        BagError: no such topic, or not of images.
    """
    topic = bag.topics.get(image) or bag.topics.get(f"{image}/compressed")
    if topic is None or topic.type not in (IMAGE, COMPRESSED):
        of_images = sorted(name for name, each in bag.topics.items() if each.type in (IMAGE, COMPRESSED))
        what = f"is a {topic.type}" if topic else "is not in the bag"
        raise BagError(f"'{image}' {what}; its image topics are: {', '.join(of_images) or 'none'}")
    names = {"image": topic.name.removesuffix("/compressed"), "compressed": topic.name, "camera_info": camera_info}
    found = complete_topics(names, {"image", "compressed"} | ({"camera_info"} if camera_info else set()))
    if camera_info and camera_info not in bag.topics:
        of_infos = sorted(name for name, each in bag.topics.items() if each.type == INFO)
        raise BagError(f"'{camera_info}' is not in the bag; its camera_info topics are: {', '.join(of_infos) or 'none'}")
    return CameraTopics(topic.name, topic.type == COMPRESSED, found["camera_info"])


def find_cameras(bag: BagInput) -> list[CameraTopics]:
    """The cameras of a bag: topics of colour or grey images, raw before compressed, rectified before unrectified.

    Raises:
        BagError: there is none.
    """
    kinds = {name: topic.type for name, topic in bag.topics.items() if topic.type in (IMAGE, COMPRESSED)}
    pictures = [
        name
        for name, kind in sorted(kinds.items())
        if bag.counts.get(name)
        and not (kind == COMPRESSED and name.removesuffix("/compressed") in kinds)
        and not name.endswith("/compressedDepth")
        and (kind == COMPRESSED or _shows_something(bag, name))
    ]
    likely = [name for name in pictures if not any(word in "/".join(name.split("/")[-3:-1]) for word in _NO_CAMERA)] or pictures
    by_camera: dict[str, list[str]] = {}
    for name in likely:
        by_camera.setdefault(name.removesuffix("/compressed").rpartition("/")[0], []).append(name)
    if not by_camera:
        raise BagError(f"no camera was found in '{bag.path}'; its topics are: {', '.join(sorted(bag.topics))}")
    return [camera_topics(bag, min(names, key=_preference)) for names in by_camera.values()]


def camera_names(cameras: list[CameraTopics]) -> list[str]:
    """A name for each camera: as much of its topic as tells it from the others; empty for the only one."""
    if len(cameras) == 1:
        return [""]
    topics = [camera.image.removesuffix("/compressed").strip("/").split("/") for camera in cameras]
    folders = [topic[:-1] for topic in topics]
    parts = folders if all(folders) and len({*map(tuple, folders)}) == len(folders) else topics
    for count in range(1, max(map(len, parts)) + 1):
        names = ["_".join(part[:count]) for part in parts]
        if len(set(names)) == len(names):
            break
    return [name if name[:1].isalpha() and name not in RESERVED_NAMES else f"camera_{name}" for name in names]


def _preference(name: str) -> tuple[bool, bool, str]:
    last = name.removesuffix("/compressed").rpartition("/")[2]
    return last not in ("image_rect_color", "image_rect"), last != "image_raw", name


def _shows_something(bag: BagInput, name: str) -> bool:
    """Whether a raw image topic is of pictures: its first image says so."""
    first = next(bag.messages(topics=[name]), None)
    try:
        return first is not None and pixels_of(read_image(first.cdr)) is not None
    except MessageError:
        return False


class Context:
    """What frames may need of a bag besides their own image. `add` every message as it is read.

    Attributes:
        problems: what could not be taken in, in words.
    """

    def __init__(self, bag: BagInput, cameras: Iterable[CameraTopics], fixed: TransformTree, sensor_topic: str = ""):
        self.problems: set[str] = set()
        sensor_topic = f"/{sensor_topic.lstrip('/')}" if sensor_topic else ""
        self.sensor = SensorLog(sensor_topic) if sensor_topic else None
        self._fixed, self._tree = fixed, fixed.copy()
        self._infos = {camera.camera_info: InfoLog() for camera in cameras}
        self._tf = {name for name, topic in bag.topics.items() if topic.type == _TRANSFORMS}
        self._sensor_type = None
        if self.sensor:
            topic = bag.topics.get(sensor_topic)
            self._sensor_type = SENSOR_TYPES.get(topic.type) if topic else None
            if self._sensor_type is None:
                what = f"is a {topic.type}, expected one of {', '.join(SENSOR_TYPES)}" if topic else "is not in the bag"
                self.sensor.problem = f"'{sensor_topic}' {what}"

    @property
    def topics(self) -> set[str]:
        """The topics that `add` takes in."""
        of_sensor = {self.sensor.topic, self.sensor.info_topic} if self.sensor else set()
        return {*self._infos, *self._tf, *of_sensor}

    def add(self, recorded: Recorded) -> None:
        """Take in a message; of most topics, nothing."""
        name = recorded.topic
        try:
            if name in self._infos:
                self._infos[name].add(deserialize_message(recorded.cdr, CameraInfo))
            if name in self._tf:
                self._add_transforms(recorded, static=name.endswith("tf_static"))
            elif self.sensor and name == self.sensor.topic and self._sensor_type:
                self.sensor.add(deserialize_message(recorded.cdr, self._sensor_type))
            elif self.sensor and name == self.sensor.info_topic:
                self.sensor.add_info(deserialize_message(recorded.cdr, CameraInfo))
        except Exception as error:  # of a damaged message rclpy and rosbags each have their own kind
            self.problems.add(f"'{name}': {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")

    def info_at(self, camera: CameraTopics, stamp_ns: int) -> CameraInfo | None:
        """The calibration of an image."""
        return self._infos[camera.camera_info].at(stamp_ns)

    def lookup(self, target: str, source: str, stamp_ns: int) -> Transform:
        """(target <- source) by the bag's tf and the parameter `transforms`, which goes before it.

        Raises:
            TransformError: they do not know it.
        """
        try:
            return self._tree.lookup(target.lstrip("/"), source.lstrip("/"), stamp_ns)
        except TransformError as error:
            if self._tf:
                raise
            raise TransformError(f"{error}; there is no tf in the bag: set the parameter transforms") from error

    def _add_transforms(self, recorded: Recorded, static: bool) -> None:
        for each in typestore().deserialize_cdr(recorded.cdr, _TRANSFORMS).transforms:
            shift, turn, stamp = each.transform.translation, each.transform.rotation, each.header.stamp
            stamp_ns = None if static else stamp.sec * 1_000_000_000 + stamp.nanosec
            child = each.child_frame_id.lstrip("/")
            try:
                transform = Transform.from_quaternion((shift.x, shift.y, shift.z), (turn.x, turn.y, turn.z, turn.w))
                if not self._fixed.knows(child):
                    self._tree.add(each.header.frame_id.lstrip("/"), child, transform, stamp_ns)
            except TransformError as error:  # costs the others nothing
                self.problems.add(f"'{recorded.topic}': '{child}': {error}")
