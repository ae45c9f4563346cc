# SPDX-License-Identifier: Apache-2.0
"""Camera model, clouds and colour on torch tensors. No ROS."""

from .camera import Camera, CameraError
from .cloud import POINT_STEP, pack_cloud, unproject
from .color import COLORMAPS, AdaptiveRange, colorize

__all__ = ["COLORMAPS", "POINT_STEP", "AdaptiveRange", "Camera", "CameraError", "colorize", "pack_cloud", "unproject"]
