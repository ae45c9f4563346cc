# SPDX-License-Identifier: Apache-2.0
"""A bag's images and what a depth sensor says of the same pixels, written once into a folder that training can draw from.

Images become what the node would show the network: rectified by the same rule (`messages.camera_info.view_of`). Depth of the
same frame and size goes pixel by pixel; every other becomes points, which are projected into the image as `depth_eval` does.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import shutil
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, Image, LaserScan

from ..geometry import Camera, CameraError
from ..messages.bridge import choose_decoder
from ..messages.camera_info import View, camera_from_info, view_of
from ..messages.cdr import MessageError, RawImage, read_header, read_image
from ..messages.ranges import METRES, cloud_points, depth_pixels, scan_points
from ..replay.bag_input import BagInput
from ..replay.evaluation import truth_image
from ..replay.feed import IMAGE, LOOK_AHEAD_NS, CameraTopics, Context, camera_topics, find_cameras, looked_ahead
from ..replay.messages import BagError, Recorded
from ..stream.image import decode, is_rectified
from ..stream.logs import SENSOR_TYPES
from ..stream.transforms import parse_transforms
from .samples import DataError

_KEPT_NS = 2_000_000_000  # of the sensor's messages: more than two stamps that belong together can be apart
_BEHIND = 1.05  # times as far as what is beside it: seen through a gap between nearer points
_SAID_ONCE = ("tf_static", "camera_info")  # perhaps only when the recording began


@dataclass(frozen=True)
class Selection:
    """What of a bag is taken.

    Attributes:
        image, depth, camera_info: topics; empty: to be found.
        start, end: seconds from the bag's beginning.
        every: each n-th image.
        max_offset: seconds between the stamps of an image and its depth.
        transforms: see `stream.transforms.parse_transforms`; those of the bag's tf need not be said.
    """

    image: str = ""
    depth: str = ""
    camera_info: str = ""
    start: float = 0.0
    end: float = math.inf
    every: int = 1
    max_offset: float = 0.05
    transforms: Sequence[str] = ()


def extract(path: Path, selection: Selection, folder: Path, progress: Callable[[int], object] = lambda images: None) -> dict:
    """Write `rgb/STAMP.png` and `depth/STAMP.png` (millimetres, where that is exact) or `.npy` (metres) into a new folder.

    Returns:
        What `folder/source.json` says: topics, images, left_out (reason -> images), focal (in short sides of the image; 0
        without calibration). A folder that was made of the same bag by the same selection is left as it is.

    Raises:
        BagError: the bag cannot be read, or has no such topics. DataError: no image has depth.
    """
    said = folder / "source.json"
    source = json.loads(json.dumps({"bag": str(path), **asdict(selection)}))
    if said.is_file():
        known = json.loads(said.read_text())
        if known["source"] == source:
            return known
        raise DataError(f"'{folder}' was made of {known['source']}, expected {source}: remove it, or name another --output")
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for name in ("rgb", "depth"):
        (partial / name).mkdir(parents=True)
    extraction = _Extraction(BagInput(path), selection, partial)
    extraction.all(progress)
    known = {"source": source, **extraction.facts()}
    if not extraction.images:
        raise DataError(f"no image of '{path}' on {extraction.camera.image} has depth: {known['left_out'] or 'there is none'}")
    (partial / said.name).write_text(json.dumps(known, indent=1) + "\n")
    partial.rename(folder)
    return known


class _Extraction:
    """A pass through a bag."""

    def __init__(self, bag: BagInput, selection: Selection, folder: Path):
        self.bag, self.selection, self.folder = bag, selection, folder
        self.camera = _camera(bag, selection)
        self.depth = _depth_topic(bag, self.camera.image, selection.depth)
        self._sensor = CameraTopics(self.depth, False, self.depth.rsplit("/", 1)[0] + "/camera_info")
        self._kind = SENSOR_TYPES[bag.topics[self.depth].type]
        self.context = Context(bag, [self.camera, self._sensor], parse_transforms(selection.transforms))
        self._decode = choose_decoder("builtin")[0]
        self._kept: deque[tuple[int, bytes]] = deque()
        self._said: dict[str, str] = {}  # one text for all that differ in their numbers only
        self.images, self.left_out, self.ways, self._focal = 0, {}, set(), 0.0

    def facts(self) -> dict:
        """What was found, for a person and for the network's file."""
        return {
            "image": self.camera.image,
            "depth": f"{self.depth}, {' and '.join(sorted(self.ways))}",
            "images": self.images,
            "left_out": self.left_out,
            "damage": [*self.bag.damage, *sorted(self.context.problems)],
            "focal": self._focal,
        }

    def all(self, progress: Callable[[int], object]) -> None:
        """Write all that the selection asks for."""
        begin, end = (
            self.bag.start_ns + round(seconds * 1e9) if math.isfinite(seconds) else 2**62
            for seconds in (self.selection.start, self.selection.end)
        )
        once = {name for name in self.context.topics if name.endswith(_SAID_ONCE)}
        before = max(self.bag.start_ns, begin - _KEPT_NS)
        for recorded in self.bag.messages(0, before, once):
            self.context.add(recorded)
        topics, number = {self.camera.image, self.depth, *self.context.topics}, 0
        for recorded in looked_ahead(self.bag.messages(before, end + LOOK_AHEAD_NS, topics), self._keep):
            if recorded.topic == self.camera.image and begin <= recorded.time_ns < end:
                if number % self.selection.every == 0:
                    self._take(recorded)
                    progress(self.images)
                number += 1

    def _keep(self, recorded: Recorded) -> None:
        self.context.add(recorded)
        if recorded.topic == self.depth:
            try:
                stamp_ns = read_header(recorded.cdr).stamp_ns
            except MessageError as error:
                self.context.problems.add(f"'{self.depth}': {error}")
                return
            self._kept.append((stamp_ns, recorded.cdr))
            while abs(stamp_ns - self._kept[0][0]) > _KEPT_NS:
                self._kept.popleft()

    def _take(self, recorded: Recorded) -> None:
        try:
            header, rgb = decode(recorded.cdr, self.camera.compressed, self._decode)
            when, cdr = min(self._kept, key=lambda entry: abs(entry[0] - header.stamp_ns), default=(None, b""))
            if when is None or abs(when - header.stamp_ns) > self.selection.max_offset * 1e9:
                raise MessageError(f"nothing on '{self.depth}' within {self.selection.max_offset:g} s")
            info = self.context.info_at(self.camera, header.stamp_ns)
            view = self._view(info, rgb.shape[1], rgb.shape[0], header.frame_id)
            depth = self._depth_of(cdr, info, view, header.frame_id, rgb.shape[:2], header.stamp_ns)
            rgb = view.rectification.apply(rgb) if view and view.rectification else rgb
        except (MessageError, CameraError, LookupError) as error:
            text = self._said.setdefault(re.sub(r"[\d.]+", "#", str(error)), str(error))
            self.left_out[text] = self.left_out.get(text, 0) + 1
            return
        self._write(f"{header.stamp_ns:020d}", rgb, depth)
        self._focal = view.camera.focal if view else 0.0
        self.images += 1

    def _view(self, info: CameraInfo | None, width: int, height: int, frame_id: str) -> View | None:
        """What the node would show the network by `rectify: auto`; None without a calibration."""
        return view_of(info, width, height, "auto", is_rectified(self.camera.image), frame_id) if info else None

    def _depth_of(
        self, cdr: bytes, info: CameraInfo | None, view: View | None, frame_id: str, shape: tuple[int, int], stamp_ns: int
    ) -> np.ndarray:
        """(H, W) float32 metres at the pixels of the view; 0, NaN or Inf where there is none."""
        spacing = 1.0
        if self._kind is Image:
            image = read_image(cdr)
            source = image.header.frame_id
            own_pixels = _frame(source) == _frame(frame_id) and (image.height, image.width) == shape
            sensor = self._sensor_camera(image, info if own_pixels else None)
            if own_pixels and not (view and view.rectification) and (not (view and sensor) or _close(sensor, view.camera)):
                self.ways.add("pixel by pixel")
                return depth_pixels(image)
            if sensor is None:
                raise CameraError(f"no camera_info on '{self._sensor.camera_info}'")
            points = _points(depth_pixels(image), sensor)
            spacing = view.camera.fx / sensor.fx if view else spacing
        else:
            message = deserialize_message(cdr, self._kind)
            points = scan_points(message) if self._kind is LaserScan else cloud_points(message)
            source = message.header.frame_id
        if view is None:
            raise CameraError(f"no camera_info on '{self.camera.camera_info}', and depth is not of the image's own pixels")
        if _frame(source) != _frame(frame_id):
            points = self.context.lookup(frame_id, source, stamp_ns).apply(points)
        if view.rectification:
            points = points @ np.reshape(view.rectification.rotation, (3, 3)).T
        self.ways.add("its points projected")
        return without_gaps(truth_image(points, view.camera), spacing).astype(np.float32)

    def _sensor_camera(self, image: RawImage, colour: CameraInfo | None) -> Camera | None:
        """Of a depth image; `colour`: the calibration of an image of the same frame and size. None: nobody says.

        Depth images are rectified, so that P describes them; but drivers that align depth with a raw colour image give it the
        colour camera's K and D.
        """
        info = self.context.info_at(self._sensor, image.header.stamp_ns)
        if info is None:
            return camera_from_info(colour, image.width, image.height, rectified=False) if colour else None
        aligned = colour and any(info.d) and list(info.d) == list(colour.d) and list(info.k) == list(colour.k)
        raw = bool(aligned) and not is_rectified(self.depth)
        return camera_from_info(info, image.width, image.height, rectified=not raw)

    def _write(self, name: str, rgb: np.ndarray, depth: np.ndarray) -> None:
        _picture(self.folder / "rgb" / f"{name}.png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
        known = np.where(np.isfinite(depth), depth, 0)
        codes = np.clip(np.rint(known * 1000), 0, 65535).astype(np.uint16)
        if np.array_equal(codes.astype(np.float32) * np.float32(0.001), known):  # 16UC1: a quarter of the size
            _picture(self.folder / "depth" / f"{name}.png", codes)
        else:
            np.save(self.folder / "depth" / f"{name}.npy", depth)


def _picture(path: Path, pixels: np.ndarray) -> None:
    if not cv2.imwrite(str(path), pixels):
        raise OSError(f"'{path}' could not be written: is the disk full?")


def without_gaps(depth: np.ndarray, spacing: float = 1.0) -> np.ndarray:
    """Depth (H, W) from projected points, NaN where none is, less those that only a gap between nearer points lets through.

    Where the image has more pixels than the sensor, a near surface is a lattice of points, `spacing` pixels apart, and what is
    behind it shows.
    """
    side = 2 * max(1, math.ceil(spacing / 2)) + 1
    filled = np.where(np.isfinite(depth), depth, np.inf)
    nearest = cv2.erode(filled, np.ones((side, side), np.uint8), borderType=cv2.BORDER_REPLICATE)
    return np.where(filled <= _BEHIND * nearest, depth, np.nan)


def _camera(bag: BagInput, selection: Selection) -> CameraTopics:
    if selection.image:
        return camera_topics(bag, selection.image, selection.camera_info)
    found = find_cameras(bag)
    if len(found) > 1:
        raise BagError(f"there are several cameras, choose one by --image: {', '.join(each.image for each in found)}")
    return camera_topics(bag, found[0].image, selection.camera_info)


def _depth_topic(bag: BagInput, image: str, said: str) -> str:
    """The sensor's topic: what was said, or the only one there is of the camera's namespace, or at all."""
    if said:
        if said not in bag.topics or bag.topics[said].type not in SENSOR_TYPES:
            kind = bag.topics[said].type if said in bag.topics else "not in the bag"
            raise BagError(f"'{said}' is {kind}, expected a raw depth image, a cloud or a scan; {_there(bag)}")
        return said
    found = []
    for name, topic in sorted(bag.topics.items()):
        if topic.type != IMAGE or name == image or "depth_anything" in name.split("/"):  # what we made is no sensor
            continue
        first = next(bag.messages(topics=[name]), None)
        with contextlib.suppress(MessageError):
            if first is not None and read_image(first.cdr).encoding in METRES and "depth" in name:
                found.append(name)
    aligned = [name for name in found if "aligned" in name or "registered" in name] or found
    if len(aligned) != 1:
        what = f"depth is on several topics: {', '.join(aligned)}" if aligned else "no depth images (16UC1 or 32FC1) were found"
        raise BagError(f"{what}; choose one by --depth; {_there(bag)}")
    return aligned[0]


def _points(depth: np.ndarray, camera: Camera) -> np.ndarray:
    """All points (N, 3) of depth (H, W) in the camera's optical frame."""
    rays, good = camera.rays().numpy(), np.isfinite(depth) & (depth > 0)
    return np.stack([rays[0][good] * depth[good], rays[1][good] * depth[good], depth[good]], 1)


def _close(one: Camera, other: Camera) -> bool:
    """Whether two cameras of one frame and size see the same at the same pixel: to one pixel at the edge."""
    across = abs(one.fx / other.fx - 1) * one.width / 2 + abs(one.cx - other.cx)
    down = abs(one.fy / other.fy - 1) * one.height / 2 + abs(one.cy - other.cy)
    return one.distortion == other.distortion and across < 1 and down < 1


def _frame(frame_id: str) -> str:
    return frame_id.lstrip("/")


def _there(bag: BagInput) -> str:
    return "the bag's topics are: " + ", ".join(f"{name} ({topic.type})" for name, topic in sorted(bag.topics.items()))
