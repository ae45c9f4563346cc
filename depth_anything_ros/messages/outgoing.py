# SPDX-License-Identifier: Apache-2.0
"""Arrays -> messages, filled by buffer: `frombytes` on the message's own array is the one fast way on every distro."""

from __future__ import annotations

import sys

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from sensor_msgs.msg import Image, LaserScan, PointCloud2, PointField
from std_msgs.msg import Header

from ..geometry import POINT_STEP, Scale, Scan, ScanSettings
from .cdr import ImageHeader


def ros_header(header: ImageHeader) -> Header:
    """The header of an input as the header of its outputs: same stamp, same frame."""
    return Header(stamp=Time(sec=header.sec, nanosec=header.nanosec), frame_id=header.frame_id)


def image_message(header: Header, pixels: np.ndarray, encoding: str) -> Image:
    """An Image of a C-contiguous (H, W) or (H, W, channels) array in this machine's byte order."""
    message = Image(header=header, height=int(pixels.shape[0]), width=int(pixels.shape[1]), encoding=encoding)
    message.step = int(pixels.strides[0])
    message.is_bigendian = int(sys.byteorder == "big")
    fill(message, pixels)
    return message


def cloud_message(header: Header, packed: np.ndarray) -> PointCloud2:
    """An organised PointCloud2 of a (H, W, POINT_STEP) uint8 array from `geometry.pack_cloud`."""
    height, width = (int(side) for side in packed.shape[:2])
    fields = [
        PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
        for i, name in enumerate(("x", "y", "z", "rgb"))
    ]
    message = PointCloud2(header=header, height=height, width=width, fields=fields, is_dense=False)
    message.is_bigendian = sys.byteorder == "big"
    message.point_step, message.row_step = POINT_STEP, POINT_STEP * width
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


def fill(message, array: np.ndarray) -> None:
    """Replace `message.data` by the bytes of a C-contiguous array."""
    del message.data[:]
    message.data.frombytes(memoryview(array.reshape(-1).view(np.uint8)))
