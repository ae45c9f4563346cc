# SPDX-License-Identifier: Apache-2.0
"""What range sensors say -> points (N, 3) float32 in the sensor's own frame: clouds, laser scans, depth images."""

from __future__ import annotations

import math

import numpy as np
from sensor_msgs.msg import CameraInfo, Image, LaserScan, PointCloud2, PointField

from ..geometry import Camera
from .camera_info import camera_from_info
from .cdr import MessageError, RawImage

METRES = {"32FC1": ("f4", 1.0), "16UC1": ("u2", 0.001), "mono16": ("u2", 0.001)}  # encoding -> type, unit: REP-118
_MOST = 30000  # points of a message; of larger ones, an even selection


def cloud_points(message: PointCloud2) -> np.ndarray:
    """The valid points of a cloud.

    Raises:
        MessageError: it has no float x, y, z, or its sizes contradict each other.
    """
    kinds = {PointField.FLOAT32: "f4", PointField.FLOAT64: "f8"}
    fields = {field.name: field for field in message.fields}
    if not {"x", "y", "z"} <= fields.keys():
        raise MessageError(f"a cloud with the fields {', '.join(sorted(fields)) or 'none'}, expected x, y and z")
    columns = []
    for name in "xyz":
        field, kind = fields[name], kinds.get(fields[name].datatype)
        if kind is None or field.offset + np.dtype(kind).itemsize > message.point_step:
            raise MessageError(f"a cloud whose field {name} is no float within its points of {message.point_step} bytes")
        columns.append((field.offset, np.dtype((">" if message.is_bigendian else "<") + kind)))
    if message.row_step < message.width * message.point_step or len(message.data) < message.row_step * message.height:
        raise MessageError(
            f"a cloud of {message.width}x{message.height} points of {message.point_step} bytes, row_step {message.row_step}, "
            f"in {len(message.data)} bytes: too few"
        )
    rows = np.frombuffer(message.data, np.uint8)[: message.row_step * message.height].reshape(message.height, message.row_step)
    each = rows[:, : message.width * message.point_step].reshape(-1, message.point_step)
    each = each[:: max(1, len(each) // _MOST)]
    found = [np.ascontiguousarray(each[:, start : start + kind.itemsize]).view(kind).reshape(-1) for start, kind in columns]
    points = np.stack(found, 1).astype(np.float32)
    return points[np.isfinite(points).all(1)]


def scan_points(message: LaserScan) -> np.ndarray:
    """The points of a laser scan, in its plane."""
    ranges = np.asarray(message.ranges, np.float32)
    angles = message.angle_min + message.angle_increment * np.arange(len(ranges))
    with np.errstate(invalid="ignore"):
        good = np.isfinite(ranges) & (ranges >= message.range_min) & (ranges <= message.range_max)
    ranges, angles = ranges[good], angles[good]
    return np.stack([ranges * np.cos(angles), ranges * np.sin(angles), np.zeros_like(ranges)], 1).astype(np.float32)


def depth_pixels(image: Image | RawImage) -> np.ndarray:
    """(H, W) float32 metres of a depth image, 32FC1 metres or 16UC1 millimetres (REP-118); what is invalid stays as it is.

    Raises:
        MessageError: another encoding, or less data than rows.
    """
    if image.encoding not in METRES:
        raise MessageError(f"a depth image of encoding '{image.encoding}', expected one of {', '.join(METRES)}")
    kind, unit = METRES[image.encoding]
    item = np.dtype((">" if image.is_bigendian else "<") + kind)
    row, size = image.width * item.itemsize, image.step * image.height
    if not size or image.step < row or len(image.data) < size:
        layout = f"{image.width}x{image.height}, step {image.step}"
        raise MessageError(f"a depth image of {layout}, in {len(image.data)} bytes: too few")
    rows = np.frombuffer(image.data, np.uint8)[:size].reshape(image.height, image.step)[:, :row]
    return np.ascontiguousarray(rows).view(item).astype(np.float32) * np.float32(unit)


def depth_points(image: Image | RawImage, info: CameraInfo) -> np.ndarray:
    """The points of a depth image in its optical frame: 32FC1 metres or 16UC1 millimetres (REP-118).

    Raises:
        MessageError: another encoding, or less data than rows; CameraError: a calibration that does not belong to it.
    """
    depth = depth_pixels(image)
    camera: Camera = camera_from_info(info, image.width, image.height, rectified=True)
    stride = max(1, math.isqrt(depth.size // _MOST) + 1)
    depth, rays = depth[::stride, ::stride], camera.rays().numpy()[:, ::stride, ::stride]
    good = np.isfinite(depth) & (depth > 0)
    return np.stack([rays[0][good] * depth[good], rays[1][good] * depth[good], depth[good]], 1)
