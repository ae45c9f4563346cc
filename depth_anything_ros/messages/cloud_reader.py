# SPDX-License-Identifier: Apache-2.0
"""PointCloud2 -> a structured array: sensor_msgs_py where it is installed, else the same in a few lines."""

from __future__ import annotations

import numpy as np
from sensor_msgs.msg import PointCloud2, PointField

try:
    from sensor_msgs_py.point_cloud2 import read_points
except ImportError:
    read_points = None

_TYPES = {
    PointField.INT8: "i1",
    PointField.UINT8: "u1",
    PointField.INT16: "i2",
    PointField.UINT16: "u2",
    PointField.INT32: "i4",
    PointField.UINT32: "u4",
    PointField.FLOAT32: "f4",
    PointField.FLOAT64: "f8",
}


def read_cloud(message: PointCloud2) -> np.ndarray:
    """(height, width) structured array with one field for each of the message's; a view of its data where possible.

    Args:
        message: any cloud whose fields have a count of 1.
    """
    if read_points is not None:
        return read_points(message, reshape_organized_cloud=True).reshape(message.height, message.width)
    return read_with_numpy(message)


def read_with_numpy(message: PointCloud2) -> np.ndarray:
    """`read_cloud` without sensor_msgs_py."""
    order = ">" if message.is_bigendian else "<"
    kind = np.dtype(
        {
            "names": [field.name for field in message.fields],
            "formats": [order + _TYPES[field.datatype] for field in message.fields],
            "offsets": [field.offset for field in message.fields],
            "itemsize": message.point_step,
        }
    )
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.row_step)
    return np.ascontiguousarray(rows[:, : message.width * message.point_step]).view(kind)
