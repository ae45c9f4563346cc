# SPDX-License-Identifier: Apache-2.0
"""CameraInfo <-> Camera: which of its numbers describe the image at hand."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from ..geometry import Camera, CameraError, Rectification, ideal_camera

RECTIFY = ("auto", "true", "false", "rays")


@dataclass(frozen=True)
class View:
    """What depth is computed on, and what describes it.

    Attributes:
        camera: of the depth image.
        info: the depth image's own CameraInfo, without header.
        rectification: how the image becomes the view; None: it is the view.
    """

    camera: Camera
    info: CameraInfo
    rectification: Rectification | None = None


def image_size(info: CameraInfo) -> tuple[int, int]:
    """(width, height) of the images that a CameraInfo belongs to: its region of interest, divided by its binning."""
    width, height = info.roi.width or info.width, info.roi.height or info.height
    return width // max(1, info.binning_x), height // max(1, info.binning_y)


def camera_from_info(info: CameraInfo, width: int, height: int, rectified: bool, frame_id: str = "") -> Camera:
    """The camera of an image of `width` x `height` in `frame_id` (empty: not compared).

    A raw image is described by K and D, a rectified one by P alone (CameraInfo.msg). Crop and binning are applied as in
    image_geometry (`pinhole_camera_model.cpp`).

    Raises:
        CameraError: another size or frame, or numbers that cannot be true.
    """
    if image_size(info) != (width, height):
        has = "x".join(str(side) for side in image_size(info))
        raise CameraError(
            f"camera_info is for {has} images, but the image is {width}x{height}: publish the matching camera_info"
        )
    if frame_id and info.header.frame_id and info.header.frame_id != frame_id:
        raise CameraError(f"camera_info is of frame '{info.header.frame_id}', but the image is of '{frame_id}'")
    if rectified and info.p[0] != 0:
        fx, cx, fy, cy = info.p[0], info.p[2], info.p[5], info.p[6]
    else:
        fx, cx, fy, cy = info.k[0], info.k[2], info.k[4], info.k[5]
    bx, by = max(1, info.binning_x), max(1, info.binning_y)
    cx, cy = (cx - info.roi.x_offset) / bx, (cy - info.roi.y_offset) / by
    distorted = not rectified and any(d != 0 for d in info.d)
    return Camera(
        int(width),
        int(height),
        float(fx / bx),
        float(fy / by),
        float(cx),
        float(cy),
        info.distortion_model if distorted else "",
        tuple(float(d) for d in info.d) if distorted else (),
    )


def info_of_camera(header: Header, camera: Camera) -> CameraInfo:
    """The CameraInfo of a camera, of the camera's own size, for an image with this header."""
    info = CameraInfo(header=header, width=camera.width, height=camera.height)
    info.distortion_model = camera.model or "plumb_bob"
    info.d = list(camera.distortion) or [0.0] * 5
    info.k = [camera.fx, 0.0, camera.cx, 0.0, camera.fy, camera.cy, 0.0, 0.0, 1.0]
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    info.p = [camera.fx, 0.0, camera.cx, 0.0, 0.0, camera.fy, camera.cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info


def info_of_grid(header: Header, info: CameraInfo | None, size: tuple[int, int], cells: tuple[int, int]) -> CameraInfo:
    """The CameraInfo of a grid over an image of (width, height) pixels, whose cells are bins: each binned pixel is a centre.

    Args:
        info: of the same view at another size; None: it is not calibrated, which K says by its zeros.
        cells: (columns, rows), in whole parts of the size.
    """
    grid = CameraInfo(header=header, width=size[0], height=size[1])
    grid.binning_x, grid.binning_y = size[0] // cells[0], size[1] // cells[1]
    if info is None:
        return grid
    sx, sy = size[0] / info.width, size[1] / info.height
    k, p = list(info.k), list(info.p)
    for matrix, row in ((k, 3), (p, 4)):
        matrix[:row] = [value * sx for value in matrix[:row]]
        matrix[row : 2 * row] = [value * sy for value in matrix[row : 2 * row]]
        # Pixel centres lie at whole coordinates, and consumers divide by the binning: a bin would be where its first pixel is.
        matrix[2] += (sx - grid.binning_x) / 2
        matrix[row + 2] += (sy - grid.binning_y) / 2
    grid.distortion_model, grid.d, grid.k, grid.p, grid.r = info.distortion_model, info.d, k, p, info.r
    return grid


def view_of(
    info: CameraInfo, width: int, height: int, rectify: str = "auto", rectified: bool = False, frame_id: str = ""
) -> View:
    """The view of an image of `width` x `height` in `frame_id`.

    Args:
        rectify: "true": by D, R and P, as image_proc does; "rays": leave the image as it is, clouds follow the true rays of
            its pixels; "false": the image is rectified already, whatever D says, and described by P; "auto": "false" if
            `rectified`, else "true", but "rays" where the rectified view would be wider than 120 degrees.
        rectified: whether the image's topic says that it is rectified.

    Raises:
        CameraError: as `camera_from_info`.
    """
    already = rectify == "false" or (rectify == "auto" and rectified)
    camera = camera_from_info(info, width, height, already, frame_id)
    if camera.model and rectify in ("auto", "true"):
        rectification = Rectification(camera, _target(info, camera), _rotation(info))
        if rectify == "true" or not rectification.wide:
            return View(rectification.target, info_of_camera(Header(), rectification.target), rectification)
    if camera.model:
        return View(camera, _info_of_distorted(info, camera))
    return View(camera, info_of_camera(Header(), camera))


@lru_cache(maxsize=16)
def _ideal(camera: Camera) -> Camera:
    return ideal_camera(camera)


def _target(info: CameraInfo, camera: Camera) -> Camera:
    """The camera of the rectified view: P, or where there is none, the largest view without empty corners."""
    p = _projection(info)
    return Camera(camera.width, camera.height, p[0], p[5], p[2], p[6]) if p else _ideal(camera)


def _rotation(info: CameraInfo) -> tuple[float, ...]:
    """R, or no rotation where there is no P that it would belong to."""
    return tuple(float(v) for v in (info.r if _projection(info) else (1, 0, 0, 0, 1, 0, 0, 0, 1)))


def _projection(info: CameraInfo) -> list[float] | None:
    """P for the image at hand, crop and binning taken in; None if it (or R) is no calibration."""
    bx, by = max(1, info.binning_x), max(1, info.binning_y)
    p = [float(v) for v in info.p]
    p[0], p[2], p[3] = p[0] / bx, (p[2] - info.roi.x_offset) / bx, p[3] / bx
    p[5], p[6] = p[5] / by, (p[6] - info.roi.y_offset) / by
    good = all(math.isfinite(v) for v in (*p, *info.r)) and p[0] > 1 and p[5] > 1 and any(info.r)
    return p if good else None


def _info_of_distorted(info: CameraInfo, camera: Camera) -> CameraInfo:
    """The CameraInfo of depth on a distorted image: K and D; R and P stay, so that consumers can rectify depth, too."""
    result, p = info_of_camera(Header(), camera), _projection(info)
    if p:
        result.p, result.r = p, list(info.r)
    return result
