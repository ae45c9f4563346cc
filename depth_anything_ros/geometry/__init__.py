# SPDX-License-Identifier: Apache-2.0
"""Camera model, transforms, scale, stabiliser, edges, clouds, scans and colour. No ROS."""

from .camera import Camera, CameraError, UncalibratedError
from .cloud import POINT_STEP, CloudSettings, pack_cloud, unproject, voxel_grid
from .color import COLORMAPS, AdaptiveRange, colorize
from .edges import UPSAMPLINGS, between_surfaces, enlarge
from .filters import MEDIANS, smooth
from .grid import grid_rays, sample_grid
from .ground import ground_inverse_depth, ground_plane, heights
from .rectify import ROTATIONS, Coverage, Rectification, ideal_camera, rotate
from .scale import SOURCES, Fit, FitError, Scale, ScaleEstimator, ScaleSettings, check_fit, fit_inverse_depth
from .scan import Scan, ScanSettings, scan_of
from .stabilizer import Stabilizer, StabilizerSettings
from .transforms import Transform, TransformError, TransformTree

__all__ = [
    "COLORMAPS",
    "MEDIANS",
    "POINT_STEP",
    "ROTATIONS",
    "SOURCES",
    "UPSAMPLINGS",
    "AdaptiveRange",
    "Camera",
    "CameraError",
    "CloudSettings",
    "Coverage",
    "Fit",
    "FitError",
    "Rectification",
    "Scale",
    "ScaleEstimator",
    "ScaleSettings",
    "Scan",
    "ScanSettings",
    "Stabilizer",
    "StabilizerSettings",
    "Transform",
    "TransformError",
    "TransformTree",
    "UncalibratedError",
    "between_surfaces",
    "check_fit",
    "colorize",
    "enlarge",
    "fit_inverse_depth",
    "grid_rays",
    "ground_inverse_depth",
    "ground_plane",
    "heights",
    "ideal_camera",
    "pack_cloud",
    "rotate",
    "sample_grid",
    "scan_of",
    "smooth",
    "unproject",
    "voxel_grid",
]
