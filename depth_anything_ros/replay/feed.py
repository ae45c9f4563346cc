# SPDX-License-Identifier: Apache-2.0
"""What belongs to each image of a bag: calibration, transforms, a range sensor's points."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo

from ..geometry import Transform, TransformError, TransformTree
from ..stream.logs import SENSOR_TYPES, InfoLog, SensorLog
from .bag_input import BagInput
from .cameras import CameraTopics
from .messages import TF_STATIC, Recorded, typestore

LOOK_AHEAD_NS = 200_000_000
"""How much later something may have been recorded than the image that it belongs to."""

_TRANSFORMS = "tf2_msgs/msg/TFMessage"


def looked_ahead(messages: Iterable[Recorded], context: Callable[[Recorded], None]) -> Iterator[Recorded]:
    """The messages as they come, each when `context` has been told of all that was recorded until `LOOK_AHEAD_NS` later."""
    waiting: deque[Recorded] = deque()
    for recorded in messages:
        if waiting and recorded.time_ns < waiting[-1].time_ns - LOOK_AHEAD_NS:  # a clock that was set back
            yield from waiting
            waiting.clear()
        while waiting and recorded.time_ns - waiting[0].time_ns > LOOK_AHEAD_NS:
            yield waiting.popleft()
        context(recorded)
        waiting.append(recorded)
    yield from waiting


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
                self._add_transforms(recorded, static=name.endswith(TF_STATIC))
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
            said = "there is no tf in the bag: set the parameter transforms, or give --transform"
            raise TransformError(f"{error}; {said}") from error

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
