# SPDX-License-Identifier: Apache-2.0
"""Which topics of a bag are cameras."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice

from ..messages.cdr import MessageError, read_compressed_image, read_image
from ..messages.images import ENCODINGS
from ..stream.image import complete_topics
from ..stream.settings import RESERVED_NAMES
from .bag_input import BagInput
from .messages import BagError

IMAGE, COMPRESSED, INFO = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/CameraInfo"
_TRIES = 20  # messages of a topic, until one says what it is
# Words in the names of topics of images that are no pictures, or not the ones that are meant.
_NO_CAMERA = {"depth", "disparity", "mask", "label", "labels", "segmentation", "semantic", "confidence", "infra", "ir"}
_VARIANT = re.compile(r"image(_(raw|rect|color|colour|mono))*")  # one image in several ways
OURS = "depth_anything"
"""In the names of topics that we, or a node of ours, have made."""


@dataclass(frozen=True)
class CameraTopics:
    """One camera of a bag: where its images are, and its calibration (which need not be there)."""

    image: str
    compressed: bool
    camera_info: str


def camera_topics(bag: BagInput, image: str, camera_info: str = "") -> CameraTopics:
    """The topics of a camera whose image topic is known; what is not said follows it by image_transport's convention.

    Raises:
        BagError: no such topic, or not of images; a calibration that is none.
    """
    topic = bag.topics.get(image) or bag.topics.get(f"{image}/compressed")
    if topic is None or topic.type not in (IMAGE, COMPRESSED):
        of_images = sorted(name for name, each in bag.topics.items() if each.type in (IMAGE, COMPRESSED))
        what = f"is a {topic.type}" if topic else "is not in the bag"
        raise BagError(f"'{image}' {what}; its image topics are: {', '.join(of_images) or 'none'}")
    names = {"image": topic.name.removesuffix("/compressed"), "compressed": topic.name, "camera_info": camera_info}
    found = complete_topics(names, {"image", "compressed"} | ({"camera_info"} if camera_info else set()))
    info = bag.topics.get(camera_info)
    if camera_info and (info is None or info.type != INFO):
        of_infos = sorted(name for name, each in bag.topics.items() if each.type == INFO)
        what = f"is a {info.type}" if info else "is not in the bag"
        raise BagError(f"'{camera_info}' {what}; its camera_info topics are: {', '.join(of_infos) or 'none'}")
    return CameraTopics(topic.name, topic.type == COMPRESSED, found["camera_info"])


def find_cameras(bag: BagInput) -> tuple[list[CameraTopics], list[str]]:
    """The cameras of a bag: topics of colour or grey images, raw before compressed, rectified before unrectified.

    Returns:
        the cameras, and the topics of pictures that by their names are no camera's.

    Raises:
        BagError: there is none.
    """
    pictures = {name: encoding for name, encoding in _pictures(bag) if OURS not in name.split("/")}
    left_out = [name for name, encoding in pictures.items() if _says_no_camera(name, encoding)]
    by_camera: dict[str, list[str]] = {}
    for name in pictures.keys() - left_out:
        folder, _, last = name.removesuffix("/compressed").rpartition("/")
        by_camera.setdefault(folder if _VARIANT.fullmatch(last) else f"{folder}/{last}", []).append(name)
    if not by_camera:
        asked = f"name it by --image, if it is one of {', '.join(left_out)}; " if left_out else ""
        raise BagError(f"no camera was found in '{bag.path}'; {asked}its topics are: {', '.join(sorted(bag.topics))}")
    return [camera_topics(bag, min(names, key=_preference)) for _, names in sorted(by_camera.items())], left_out


def camera_names(cameras: list[CameraTopics]) -> list[str]:
    """A name for each camera: as much of its topic as tells it from the others; empty for the only one."""
    if len(cameras) == 1:
        return [""]
    topics = [camera.image.removesuffix("/compressed").strip("/").split("/") for camera in cameras]
    folders = [topic[:-1] for topic in topics]
    parts = folders if all(folders) and len({*map(tuple, folders)}) == len(folders) else topics
    for length in range(1, max(map(len, parts)) + 1):
        names = ["_".join(part[:length]) for part in parts]
        if len(set(names)) == len(names):
            break
    found: list[str] = []
    for name in names:
        name = name if name[:1].isalpha() and name not in RESERVED_NAMES else f"camera_{name}"
        others = {*found, *names} - {name}
        found.append(name if name not in found else next(n for k in count(2) if (n := f"{name}_{k}") not in others))
    return found


def _pictures(bag: BagInput) -> Iterator[tuple[str, str]]:
    """Topics of colour or grey images, each with its encoding; empty: nobody can say."""
    kinds = {name: topic.type for name, topic in sorted(bag.topics.items()) if topic.type in (IMAGE, COMPRESSED)}
    for name, kind in kinds.items():
        if not bag.counts.get(name) or name.endswith("/compressedDepth"):
            continue
        if name.endswith("/compressed") and name.removesuffix("/compressed") in kinds:
            continue
        encoding = _encoding(bag, name, kind)
        if kind == COMPRESSED or not encoding or encoding in ENCODINGS:
            yield name, encoding


def _encoding(bag: BagInput, name: str, kind: str) -> str:
    """What the first messages say, though their pixels may be damaged."""
    for recorded in islice(bag.messages(topics=[name]), _TRIES):
        try:
            if kind == IMAGE:
                return read_image(recorded.cdr).encoding
            return read_compressed_image(recorded.cdr).format.partition(";")[0]
        except MessageError:
            continue
    return ""


def _says_no_camera(name: str, encoding: str) -> bool:
    """Whether the name of a picture's topic says that it is no camera's: of colour it has to say so plainly."""
    folder, _, last = name.removesuffix("/compressed").lower().rpartition("/")
    of_folder, of_last = ({word.rstrip("0123456789") for word in part.split("_")} for part in (folder.rpartition("/")[2], last))
    colour = encoding in ENCODINGS and ENCODINGS[encoding][0] > 1 or encoding.startswith("bayer")
    return bool(of_last & _NO_CAMERA) or (of_folder <= _NO_CAMERA if colour else bool(of_folder & _NO_CAMERA))


def _preference(name: str) -> tuple[bool, bool, str]:
    last = name.removesuffix("/compressed").rpartition("/")[2]
    return last not in ("image_rect_color", "image_rect"), last != "image_raw", name
