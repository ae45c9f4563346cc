# SPDX-License-Identifier: Apache-2.0
"""Camera model, rectification, edges, clouds and colour. No ROS."""

from .camera import Camera, CameraError, UncalibratedError
from .cloud import POINT_STEP, pack_cloud, unproject
from .color import COLORMAPS, AdaptiveRange, colorize
from .edges import between_surfaces, enlarge
from .rectify import ROTATIONS, Rectification, ideal_camera, rotate

__all__ = [
    "COLORMAPS",
    "POINT_STEP",
    "ROTATIONS",
    "AdaptiveRange",
    "Camera",
    "CameraError",
    "Rectification",
    "UncalibratedError",
    "between_surfaces",
    "colorize",
    "enlarge",
    "ideal_camera",
    "pack_cloud",
    "rotate",
    "unproject",
]
