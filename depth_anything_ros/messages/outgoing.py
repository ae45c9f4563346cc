# SPDX-License-Identifier: Apache-2.0
"""Arrays -> messages, filled by buffer: `frombytes` on the message's own array is the one fast way on every distro."""

from __future__ import annotations

import sys

import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import Image, PointCloud2, PointField
from std_msgs.msg import Header

from ..geometry import POINT_STEP
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


def fill(message, array: np.ndarray) -> None:
    """Replace `message.data` by the bytes of a C-contiguous array."""
    del message.data[:]
    message.data.frombytes(memoryview(array.reshape(-1).view(np.uint8)))
