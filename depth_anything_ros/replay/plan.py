# SPDX-License-Identifier: Apache-2.0
"""What is to be made of one bag: decided, and checked, before the first message is read."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .. import __version__
from ..models import METRIC, RELATIVE
from ..stream.settings import Settings, SettingsError
from ..stream.topics import LACKS, OUTPUT_TYPES, needs_of
from .bag_input import BagInput
from .cameras import OURS, CameraTopics, camera_names, camera_topics, find_cameras
from .messages import BagError
from .parameters import settings_from

_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)


@dataclass(frozen=True)
class Request:
    """What the user asks for; the same for all bags of a run.

    Attributes:
        values: parameters that differ from their defaults.
        images, camera_infos: topics of the cameras, if they are not to be found; as many calibrations or none.
        topics: outputs to make, such as "depth/points"; empty: depth in metres (or relative where there are none), its
            camera_info, and what its scale comes from.
        namespace: that the new topics are put in.
        start, end: seconds from the bag's beginning; 0 as `end`: to its end.
        every: only of each n-th image of a camera there is depth.
        only_depth: leave out what was in the bag.
        storage: "mcap", "sqlite3", or as the input ("").
        compressed: with zstd.
        split_bytes: size after which the output goes on in another file.
    """

    values: dict[str, object]
    images: Sequence[str] = ()
    camera_infos: Sequence[str] = ()
    topics: Sequence[str] = ()
    namespace: str = "depth_anything"
    start: float = 0.0
    end: float = 0.0
    every: int = 1
    only_depth: bool = False
    storage: str = ""
    compressed: bool = False
    split_bytes: int = 1 << 30


@dataclass(frozen=True)
class Plan:
    """What is to be made of one bag.

    Attributes:
        cameras: by name; the only one's is empty.
        topics: outputs to make.
        required: those of them without which an image has no depth; the others are made where they can be had.
        start_ns, end_ns: nanoseconds since the epoch.
        unknown: parameters in the user's files that nobody knows.
        notes: what the user may not expect, in words.
    """

    request: Request
    bag: BagInput
    cameras: dict[str, CameraTopics]
    settings: Settings
    topics: tuple[str, ...]
    required: tuple[str, ...]
    start_ns: int
    end_ns: int
    unknown: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def storage(self) -> str:
        """ "mcap" or "sqlite3"."""
        return self.request.storage or self.bag.storage

    @property
    def images(self) -> int:
        """About how many images there are to be worked on."""
        counts = sum(self.bag.counts.get(camera.image, 0) for camera in self.cameras.values())
        return round(counts * self.bag.share(self.start_ns, self.end_ns) / self.request.every)

    def topic(self, camera: str, output: str) -> str:
        """The full name of an output."""
        return "/" + "/".join(part for part in (self.request.namespace.strip("/"), camera, output) if part)

    @property
    def outputs(self) -> set[str]:
        """The full names of all outputs."""
        return {self.topic(camera, output) for camera in self.cameras for output in self.topics}

    @property
    def fingerprint(self) -> str:
        """Of all that decides what comes out: only work begun with the same may be gone on with."""
        request = self.request
        said = {
            "version": __version__,
            "files": [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in self.bag.files],
            "parameters": {name: value for name, value in sorted(self.settings.values.items()) if name != "device"},
            "weights": self.settings.model.identity,
            "cameras": {name: str((topics, self.settings.cameras[name])) for name, topics in self.cameras.items()},
            "topics": self.topics,
            "span": (self.start_ns, self.end_ns, request.every),
            "output": (request.namespace, request.only_depth, self.storage, request.compressed, request.split_bytes),
        }
        return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()


def make_plan(bag: BagInput, request: Request) -> Plan:
    """Decide and check everything.

    Raises:
        BagError, SettingsError, ModelError: it cannot be done; the message says why.
    """
    unheard = sorted(set(request.topics) - OUTPUT_TYPES.keys())
    if unheard:
        raise SettingsError(f"no such output: {', '.join(unheard)}; there are {', '.join(OUTPUT_TYPES)}")
    if wrong := [part for part in request.namespace.strip("/").split("/") if not _NAME.fullmatch(part) and request.namespace]:
        raise SettingsError(f"--namespace {request.namespace}: '{wrong[0]}' is no name of letters, digits and _ in ROS")
    cameras, notes = _cameras(bag, request)
    settings, unknown = settings_from(request.values, cameras)
    for name, seconds in (("start", request.start), ("end", request.end)):
        if not 0 <= seconds < math.inf:
            raise BagError(f"--{name} is {seconds:g}, expected seconds from the beginning of the bag")
    start_ns = bag.start_ns + round(request.start * 1e9)
    end_ns = bag.start_ns + round(request.end * 1e9) if request.end else bag.end_ns + 1
    if request.end and request.end <= request.start:
        raise BagError(f"--end {request.end:g} is not after --start {request.start:g}")
    if start_ns > bag.end_ns:
        raise BagError(f"nothing begins at {request.start:g} s: the bag is {(bag.end_ns - bag.start_ns) / 1e9:.1f} s long")
    metres = settings.model.metric or settings.refine.scale.source != "none"
    usual = ["depth/image" if metres else "depth/relative", "depth/camera_info"]
    usual += ["depth/scale"] if settings.refine.scale.source != "none" else []
    topics = tuple(dict.fromkeys(request.topics or usual))
    for topic in topics:
        if why := _never(topic, settings):
            raise SettingsError(f"there can be no {topic}: {why}")
    required = topics if request.topics else topics[:1]
    plan = Plan(request, bag, cameras, settings, topics, required, start_ns, end_ns, tuple(unknown), notes)
    return replace(plan, notes=(*notes, *_replaced(plan)))


def _never(topic: str, settings: Settings) -> str:
    """Why no image can have an output; empty: some may."""
    needs, scaled = needs_of(topic, settings.outputs), settings.refine.scale.source != "none"
    if "metres" in needs and settings.model.kind == RELATIVE and not scaled:
        return f"model '{settings.network.model}' says nothing of metres, and scale.source is none"
    if "relative" in needs and settings.model.kind == METRIC:
        return f"model '{settings.network.model}' says metres"
    lacks = {"scale": not scaled, "confidence": not settings.confidence}
    return next((LACKS[need][1] for need, is_off in lacks.items() if is_off and need in needs), "")


def _replaced(plan: Plan) -> list[str]:
    """What becomes of topics in the bag that have the names of outputs, in words.

    Raises:
        BagError: they are not ours to replace.
    """
    there = plan.outputs & plan.bag.topics.keys()
    ours = {name for name in plan.bag.topics if OURS in name.split("/")}
    read = {topic for camera in plan.cameras.values() for topic in (camera.image, camera.camera_info)}
    if wrong := there & read or (set() if plan.request.only_depth else there - ours):
        raise BagError(f"the bag has {', '.join(sorted(wrong))} already: choose another --namespace for the new topics")
    if not there or plan.request.only_depth:
        return []
    kept = f"; as they were: {', '.join(sorted(ours - there))}" if ours - there else ""
    return [f"the bag has depth already; made anew: {', '.join(sorted(there))}{kept}"]


def _cameras(bag: BagInput, request: Request) -> tuple[dict[str, CameraTopics], tuple[str, ...]]:
    """By name, as the user says, else as the parameters say, else as the bag says; and what is left out, in words."""
    values, notes = request.values, ()
    if request.camera_infos and len(request.camera_infos) != len(request.images):
        raise SettingsError("expected one --camera-info for each --image, in the same order, or none")
    names = [name for name in values.get("cameras", ()) if name]
    if request.images:
        infos = request.camera_infos or [""] * len(request.images)
        found = [camera_topics(bag, image, info) for image, info in zip(request.images, infos)]
    elif names:
        return {name: _by_parameters(bag, values, name) for name in names}, notes
    elif values.get("camera.image") or values.get("camera.compressed"):
        return {"": _by_parameters(bag, values, "camera")}, notes
    else:
        found, left_out = find_cameras(bag)
        notes = (f"no camera's, by their names: {', '.join(left_out)}; --image takes them",) if left_out else ()
    if names and len(names) != len(found):
        raise SettingsError(f"cameras names {len(names)} cameras, but there are {len(found)} --image")
    if len({camera.image for camera in found}) < len(found):
        raise SettingsError("one image topic is given twice by --image")
    return dict(zip(names or camera_names(found), found, strict=True)), notes


def _by_parameters(bag: BagInput, values: dict[str, object], group: str) -> CameraTopics:
    def value(key: str) -> str:
        text = str(values.get(f"{group}.{key}") or values.get(f"camera.{key}") or "")
        return f"/{text.lstrip('/')}" if text else ""

    compressed = value("compressed") if str(values.get(f"{group}.image_transport", "")) == "compressed" else ""
    image = compressed or value("image") or value("compressed")
    if not image:
        raise SettingsError(f"{group}.image is not set: name the topic of camera '{group}'")
    return camera_topics(bag, image, value("camera_info"))
