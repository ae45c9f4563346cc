# SPDX-License-Identifier: Apache-2.0
"""What frames need from elsewhere: transforms and a range sensor's points, of the frame's own time."""

from __future__ import annotations

from collections.abc import Callable, Collection

from ..geometry import CameraError, Transform, TransformError
from ..messages.cdr import MessageError
from ..pipeline import Side
from .logs import SensorLog
from .settings import Settings
from .topics import needs_of

Lookup = Callable[[str, str, int], Transform]  # target and source frame, nanoseconds -> (target <- source), or TransformError


def side_of(
    stamp_ns: int, frame_id: str, settings: Settings, wanted: Collection[str], lookup: Lookup, sensor: SensorLog | None
) -> tuple[Side, str]:
    """What a frame in `frame_id` needs for the topics that are wanted; and which transform is missing, in words."""
    mount, scan, missing = None, None, ""
    source = settings.refine.scale.source
    needs = {need for topic in wanted for need in needs_of(topic, settings.outputs)}
    try:
        if source == "ground" or "mount" in needs:
            mount = lookup(settings.base_frame, frame_id, stamp_ns)
        if "scan mount" in needs:
            scan = lookup(settings.outputs.scan.frame, frame_id, stamp_ns)
    except TransformError as error:
        missing = str(error)
    if source == "ground":
        return Side(mount=mount, scan=scan, problem=_height_problem(mount, settings) or ("" if mount else missing)), missing
    if source != "sparse":
        return Side(mount=mount, scan=scan), missing
    transform, points, problem = _of_sensor(stamp_ns, frame_id, settings, lookup, sensor)
    return Side(mount, transform, points, scan, problem), missing


def _of_sensor(stamp_ns: int, frame_id: str, settings: Settings, lookup: Lookup, sensor: SensorLog | None):
    """(optical frame <- sensor's frame), its points, and what is the matter if there are none."""
    if sensor is None:
        return None, None, "scale.topic was empty when the node was configured"
    if sensor.problem:
        return None, None, sensor.problem
    try:
        frame, points = sensor.at(stamp_ns, settings.scale_max_offset)
        return lookup(frame_id, frame, stamp_ns), points, ""
    except (TransformError, MessageError, CameraError) as error:
        return None, None, f"'{sensor.topic}': {error}"


def _height_problem(mount: Transform | None, settings: Settings) -> str:
    if mount is None or settings.refine.scale.camera_height or mount.translation[2] > 0.02:
        return ""
    return (
        f"the camera is {mount.translation[2]:.2f} m above z = 0 of '{settings.base_frame}', which cannot be the ground: set "
        "base_frame to a frame on it, or scale.camera_height"
    )
