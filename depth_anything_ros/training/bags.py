# SPDX-License-Identifier: Apache-2.0
"""A bag's images and what a depth sensor says of the same pixels, written once into a folder that training can draw from.

Images become what the node would show the network: rectified by the same rule (`messages.camera_info.view_of`). Depth of the
same frame and size goes pixel by pixel; every other becomes points, which are projected into the image as `depth_eval` does.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from sensor_msgs.msg import CameraInfo

from ..geometry import Camera, CameraError, TransformError, rotate
from ..messages.bridge import choose_decoder
from ..messages.camera_info import View, camera_from_info, view_of
from ..messages.cdr import MessageError, RawImage
from ..messages.ranges import depth_pixels
from ..replay.bag_input import BagInput
from ..replay.cameras import CameraTopics, camera_topics, find_cameras
from ..replay.evaluation import truth_image
from ..replay.messages import BagError, Recorded
from ..replay.pairs import Pairs, depth_images
from ..stream.image import decode, is_rectified
from ..stream.logs import SENSOR_TYPES
from .samples import DataError, write_picture

_BEHIND = 1.05  # times as far as what is beside it: seen through a gap between nearer points


@dataclass(frozen=True)
class Selection:
    """What of a bag is taken.

    Attributes:
        image, depth, camera_info: topics; empty: to be found.
        start, end: seconds from the bag's beginning.
        every: each n-th image.
        max_offset: seconds between the stamps of an image and its depth.
        transforms: see `stream.transforms.parse_transforms`; those of the bag's tf need not be said.
        rotation: degrees clockwise by which images and depth are turned, as the node's camera.rotation: 0, 90, 180 or 270.
    """

    image: str = ""
    depth: str = ""
    camera_info: str = ""
    start: float = 0.0
    end: float = math.inf
    every: int = 1
    max_offset: float = 0.05
    transforms: Sequence[str] = ()
    rotation: int = 0


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
        why = "; ".join(f"{count} left out: {reason}" for reason, count in known["left_out"].items()) or "there is none"
        raise DataError(f"no image of '{path}' on {extraction.camera.image} has depth: {why}")
    (partial / said.name).write_text(json.dumps(known, indent=1) + "\n")
    partial.rename(folder)
    return known


class _Extraction:
    """A pass through a bag."""

    def __init__(self, bag: BagInput, selection: Selection, folder: Path):
        self.bag, self.selection, self.folder = bag, selection, folder
        self.camera = _camera(bag, selection)
        self.depth = _depth_topic(bag, self.camera.image, selection.depth)
        self.pairs = Pairs(bag, self.camera, self.depth, selection.max_offset, selection.transforms)
        self._decode = choose_decoder("builtin")[0]
        self.images, self.ways, self._focal = 0, set(), 0.0

    def facts(self) -> dict:
        """What was found, for a person and for the network's file."""
        return {
            "image": self.camera.image,
            "depth": f"{self.depth}, {' and '.join(sorted(self.ways))}",
            "images": self.images,
            "left_out": dict(self.pairs.left_out.values()),
            "damage": [*self.bag.damage, *sorted(self.pairs.context.problems)],
            "focal": self._focal,
        }

    def all(self, progress: Callable[[int], object]) -> None:
        """Write all that the selection asks for."""
        for recorded in self.pairs.images(self.selection.start, self.selection.end, self.selection.every):
            try:
                self._take(recorded)
            except (MessageError, CameraError, TransformError) as error:
                self.pairs.leave_out(error)
            progress(self.images)

    def _take(self, recorded: Recorded) -> None:
        header, rgb = decode(recorded.cdr, self.camera.compressed, self._decode)
        name = f"{header.stamp_ns:020d}"
        if (self.folder / "rgb" / f"{name}.png").exists():
            raise MessageError("an earlier image has the same stamp: is the camera's clock set?")
        cdr = self.pairs.nearest(header.stamp_ns)
        info = self.pairs.context.info_at(self.camera, header.stamp_ns)
        view = self._view(info, rgb.shape[1], rgb.shape[0], header.frame_id)
        depth = self._depth_of(cdr, info, view, header.frame_id, rgb.shape[:2], header.stamp_ns)
        rgb = view.rectification.apply(rgb) if view and view.rectification else rgb
        turned = (rotate(pixels, self.selection.rotation) for pixels in (rgb, depth))
        self._write(name, *turned)
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
        if self.pairs.gives_images:
            image = self.pairs.image(cdr)
            source = image.header.frame_id
            own_pixels = source.lstrip("/") == frame_id.lstrip("/") and (image.height, image.width) == shape
            sensor = self._sensor_camera(image, info if own_pixels else None)
            if own_pixels and not (view and view.rectification) and (not (view and sensor) or _close(sensor, view.camera)):
                self.ways.add("pixel by pixel")
                return depth_pixels(image)
            if sensor is None:
                raise CameraError(f"no camera_info on '{self.pairs.sensor.camera_info}'")
            points = _points(depth_pixels(image), sensor)
            spacing = view.camera.fx / sensor.fx if view else spacing
        else:
            source, points = self.pairs.points(cdr)
        if view is None:
            raise CameraError(f"no camera_info on '{self.camera.camera_info}', and depth is not of the image's own pixels")
        points = self.pairs.in_frame(points, frame_id, source, stamp_ns)
        if view.rectification:
            points = points @ np.reshape(view.rectification.rotation, (3, 3)).T
        self.ways.add("its points projected")
        return without_gaps(truth_image(points, view.camera), spacing).astype(np.float32)

    def _sensor_camera(self, image: RawImage, colour: CameraInfo | None) -> Camera | None:
        """Of a depth image; `colour`: the calibration of an image of the same frame and size. None: nobody says.

        Depth images are rectified, so that P describes them; but drivers that align depth with a raw colour image give it the
        colour camera's K and D.
        """
        info = self.pairs.context.info_at(self.pairs.sensor, image.header.stamp_ns)
        if info is None:
            return camera_from_info(colour, image.width, image.height, rectified=False) if colour else None
        aligned = colour and any(info.d) and list(info.d) == list(colour.d) and list(info.k) == list(colour.k)
        raw = bool(aligned) and not is_rectified(self.depth)
        return camera_from_info(info, image.width, image.height, rectified=not raw)

    def _write(self, name: str, rgb: np.ndarray, depth: np.ndarray) -> None:
        write_picture(self.folder / "rgb" / f"{name}.png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
        known = np.where(np.isfinite(depth), depth, 0)
        codes = np.clip(np.rint(known * 1000), 0, 65535).astype(np.uint16)
        if np.array_equal(codes.astype(np.float32) * np.float32(0.001), known):  # 16UC1: a quarter of the size
            write_picture(self.folder / "depth" / f"{name}.png", codes)
        else:
            np.save(self.folder / "depth" / f"{name}.npy", depth)


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
    found, _ = find_cameras(bag)
    if len(found) > 1:
        raise BagError(f"there are several cameras, choose one by --image: {', '.join(each.image for each in found)}")
    return camera_topics(bag, found[0].image, selection.camera_info)


def _depth_topic(bag: BagInput, image: str, said: str) -> str:
    """The sensor's topic: what was said, or the only one there is of the camera's namespace, or at all."""
    if said:
        if said not in bag.topics or bag.topics[said].type not in SENSOR_TYPES:
            kind = bag.topics[said].type if said in bag.topics else "not in the bag"
            raise BagError(f"'{said}' is {kind}, expected a depth image, a cloud or a scan; {_there(bag)}")
        return said
    found = [name for name in depth_images(bag) if name != image and "depth_anything" not in name.split("/")]  # ours: no sensor
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


def _there(bag: BagInput) -> str:
    return "the bag's topics are: " + ", ".join(f"{name} ({topic.type})" for name, topic in sorted(bag.topics.items()))
