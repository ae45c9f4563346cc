# SPDX-License-Identifier: Apache-2.0
"""Arrays -> messages, filled by buffer: `frombytes` on the message's own array is the one fast way on every distro."""

from __future__ import annotations

import sys

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from sensor_msgs.msg import Image, LaserScan, PointCloud2, PointField
from std_msgs.msg import Float32MultiArray, Header, MultiArrayDimension, MultiArrayLayout

from ..geometry import POINT_STEP, Scale, Scan, ScanSettings
from .cdr import ImageHeader


def ros_header(header: ImageHeader) -> Header:
    """The header of an input as the header of its outputs: same stamp, same frame."""
    return Header(stamp=Time(sec=header.sec, nanosec=header.nanosec), frame_id=header.frame_id)


def image_message(header: Header, pixels: np.ndarray, encoding: str, message: Image | None = None) -> Image:
    """An Image of a C-contiguous (H, W) or (H, W, channels) array in this machine's byte order.

    Args:
        message: one that is not needed any more, to be filled anew: large memory is slow to get.
    """
    message = message or Image()
    message.header, message.encoding = header, encoding
    message.height, message.width = (int(side) for side in pixels.shape[:2])
    message.step = int(pixels.strides[0])
    message.is_bigendian = int(sys.byteorder == "big")
    fill(message, pixels)
    return message


def cloud_message(header: Header, packed: np.ndarray, message: PointCloud2 | None = None) -> PointCloud2:
    """An organised PointCloud2 of a (H, W, POINT_STEP) uint8 array from `geometry.pack_cloud`; `message`: as above."""
    message = message or PointCloud2()
    message.header, message.is_bigendian, message.is_dense = header, sys.byteorder == "big", False
    message.height, message.width = (int(side) for side in packed.shape[:2])
    message.point_step, message.row_step = POINT_STEP, POINT_STEP * message.width
    message.fields = [
        PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
        for i, name in enumerate(("x", "y", "z", "rgb"))
    ]
    fill(message, packed)
    return message


def scan_message(header: Header, scan: Scan, settings: ScanSettings) -> LaserScan:
    """A LaserScan with the image's stamp, in the scan's own frame; all beams are of one moment."""
    ranges = np.ascontiguousarray(scan.ranges.cpu().numpy(), np.float32)
    message = LaserScan(header=Header(stamp=header.stamp, frame_id=settings.frame))
    message.angle_min, message.angle_increment = float(scan.angle_min), float(scan.increment)
    message.angle_max = float(scan.angle_min + scan.increment * (len(ranges) - 1))
    message.range_min, message.range_max = float(settings.min_range), float(settings.max_range)
    del message.ranges[:]
    message.ranges.frombytes(memoryview(ranges).cast("B"))
    return message


def scale_message(header: Header, scale: Scale) -> DiagnosticArray:
    """What depth's scale is and how good: one status with the image's stamp, every value by its name."""
    status = DiagnosticStatus(name="depth scale", hardware_id=header.frame_id, message=scale.problem)
    status.level = (
        DiagnosticStatus.ERROR if not scale.valid else DiagnosticStatus.WARN if scale.problem else DiagnosticStatus.OK
    )
    status.values = [KeyValue(key=key, value=value) for key, value in scale.report().items()]
    return DiagnosticArray(header=header, status=[status])


def vector_message(values: np.ndarray, label: str) -> Float32MultiArray:
    """A Float32MultiArray of (N,) float32; the type has no room for a header."""
    values = np.ascontiguousarray(values, np.float32)
    dimension = MultiArrayDimension(label=label, size=len(values), stride=len(values))
    return Float32MultiArray(layout=MultiArrayLayout(dim=[dimension]), data=values.tolist())


def fill(message, *parts: np.ndarray | bytes) -> None:
    """Replace `message.data` by the bytes of C-contiguous arrays, one after the other; in its own memory if they fit."""
    parts = [part if isinstance(part, bytes) else part.reshape(-1).view(np.uint8) for part in parts]
    if len(message.data) != sum(len(part) for part in parts):
        del message.data[:]
        for part in parts:
            message.data.frombytes(memoryview(part))
        return
    memory = memoryview(message.data)
    for part in parts:
        memory[: len(part)] = part
        memory = memory[len(part) :]
