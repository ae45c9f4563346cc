# SPDX-License-Identifier: Apache-2.0
"""The output topics: what is on each, and what it needs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, LaserScan, PointCloud2
from std_msgs.msg import Float32MultiArray, Header

from ..messages.camera_info import info_of_grid
from ..messages.compressed import compressed_color_message, compressed_depth_message, compressed_raw_depth_message
from ..messages.outgoing import cloud_message, image_message, scale_message, scan_message, vector_message
from ..outputs import Outputs, OutputSettings

_POINTS = {"metres", "camera"}

_Make = Callable[[Header, Outputs, CameraInfo, object], object]  # the last is the topic's message before, or None


def _image(pixels: Callable[[Outputs], np.ndarray], encoding: str) -> _Make:
    return lambda header, outputs, info, old: image_message(header, pixels(outputs), encoding, old)


def _cloud(packed: Callable[[Outputs], np.ndarray]) -> _Make:
    return lambda header, outputs, info, old: cloud_message(header, packed(outputs), old)


# topic -> (message type, what it needs, how it is made)
_TOPICS: dict[str, tuple[type, set[str], _Make]] = {
    "depth/image": (Image, {"metres"}, _image(lambda outputs: outputs.depth, "32FC1")),
    "depth/image_raw": (Image, {"metres"}, _image(lambda outputs: outputs.depth_mm, "16UC1")),
    "depth/image/compressedDepth": (
        CompressedImage,
        {"metres"},
        lambda header, outputs, info, old: compressed_depth_message(
            header, outputs.depth, outputs.settings.near, outputs.settings.far
        ),
    ),
    "depth/image_raw/compressedDepth": (
        CompressedImage,
        {"metres"},
        lambda header, outputs, info, old: compressed_raw_depth_message(header, outputs.depth_mm),
    ),
    "depth/relative": (Image, {"relative"}, _image(lambda outputs: outputs.relative, "32FC1")),
    "depth/confidence": (Image, {"confidence"}, _image(lambda outputs: outputs.confidence, "32FC1")),
    "depth/color": (Image, set(), _image(lambda outputs: outputs.color, "bgr8")),
    "depth/color/compressed": (
        CompressedImage,
        set(),
        lambda header, outputs, info, old: compressed_color_message(header, outputs.color),
    ),
    "depth/points": (PointCloud2, _POINTS, _cloud(lambda outputs: outputs.cloud)),
    "depth/clearing": (PointCloud2, _POINTS, _cloud(lambda outputs: outputs.clearing)),
    "depth/obstacles": (PointCloud2, _POINTS | {"mount"}, _cloud(lambda outputs: outputs.obstacles)),
    "depth/ground": (PointCloud2, _POINTS | {"mount"}, _cloud(lambda outputs: outputs.ground)),
    "depth/scan": (
        LaserScan,
        _POINTS | {"mount", "scan mount"},
        lambda header, outputs, info, old: scan_message(header, outputs.scan, outputs.settings.scan),
    ),
    "depth/scale": (
        DiagnosticArray,
        {"scale"},
        lambda header, outputs, info, old: scale_message(header, outputs.refined.scale),
    ),
    "depth/camera_info": (CameraInfo, {"camera"}, lambda header, outputs, info, old: info),
    "features": (Image, {"features"}, _image(lambda outputs: outputs.features, "32FC1")),
    "features/camera_info": (
        CameraInfo,
        {"features"},
        lambda header, outputs, info, old: info_of_grid(header, info, *outputs.features_grid),
    ),
    "features/class_token": (
        Float32MultiArray,
        {"features", "class token"},
        lambda header, outputs, info, old: vector_message(outputs.class_token, "channels"),
    ),
    "rgb/image_rect": (Image, {"camera", "view"}, _image(lambda outputs: outputs.rgb, "rgb8")),
    "rgb/camera_info": (CameraInfo, {"camera", "view"}, lambda header, outputs, info, old: info),
}

OUTPUT_TYPES: dict[str, type] = {topic: kind for topic, (kind, _, _) in _TOPICS.items()}
# What a frame may lack -> (kind of problem, text): the user can do something about it. The most serious lack comes first.
# Not of metres: that is not the frame's fault.
LACKS = {
    "camera": ("no calibration", "no calibration"),
    "view": ("distorted view", "no view without distortion is made (camera.rectify is rays, or it would be too wide)"),
    "mount": ("no transform", ""),
    "scan mount": ("no transform", ""),
    "confidence": ("not enabled", "confidence.enabled is false"),
    "scale": ("not enabled", "scale.source is none"),
    "class token": ("no class token", "this encoder has none"),
}


def needs_of(topic: str, settings: OutputSettings) -> set[str]:
    """What a topic needs: see `Outputs.has`; and "view", a camera without distortion."""
    needs = _TOPICS[topic][1]
    return needs | {"mount"} if topic == "depth/points" and settings.cloud.has_band else needs


def lacks_of(topic: str, outputs: Outputs, info: CameraInfo | None) -> set[str]:
    """What a topic needs and a frame does not have; `info`: of the depth image, None if there is no valid one."""
    have = outputs.has | (set() if info is None or any(info.d) else {"view"})
    return needs_of(topic, outputs.settings) - have


def explained(need: str, problem: tuple[str, str] | None, missing: str) -> tuple[str, str]:
    """(kind of problem, text) of a need in `LACKS` that a frame does not meet.

    Args:
        problem: of the image's calibration.
        missing: which transform is not there.
    """
    kind, text = LACKS[need]
    if need == "camera" and problem:
        return problem
    return kind, missing if need in ("mount", "scan mount") else text


def make_message(topic: str, header: Header, outputs: Outputs, info: CameraInfo | None, old: object = None) -> object:
    """A frame's message for a topic that lacks nothing.

    Args:
        header: the input's own.
        old: the topic's message before, if its memory may be used again.
    """
    return _TOPICS[topic][2](header, outputs, info, old)
