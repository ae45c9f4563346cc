# SPDX-License-Identifier: Apache-2.0
"""compressedDepth, written and read, and JPEG, as image_transport's plugins have them.

Byte layout: compressed_depth_image_transport, `codec.cpp`: a header of an int32 and two float32 (A, B), then a 16-bit PNG of
the codes A / z + B, 0 for invalid; a reader takes A and B from the header.
"""

from __future__ import annotations

import os
import struct
import sys

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from . import cdr
from .cdr import MessageError, RawImage
from .outgoing import fill

_HEADER = struct.Struct("<iff")  # format, A, B
_INVERSE_DEPTH = 0
_PNG_LEVEL = 1
_LARGEST_CODE = 65535


def compressed_depth_message(header: Header, depth: np.ndarray, near: float, far: float) -> CompressedImage:
    """32FC1 metres (H, W), NaN invalid, quantised in inverse depth so that 16 bits span `near` to `far`.

    The plugin's own A (from depth_quantization 100 and depth_max 10) would lose what is beyond 10 m, and wrap around nearer
    than 0.15 m. The step between two codes is z^2 / A metres.
    """
    low, high = max(near, 0.01), far * 1.001  # so that rounding leaves `far` itself a code of 1 at least
    a = np.float32((_LARGEST_CODE - 2) / (1 / low - 1 / high))
    b = np.float32(1 - a / np.float32(high))
    with np.errstate(invalid="ignore", divide="ignore"):
        codes = a / depth + b
        codes = np.where((depth >= low) & (depth <= far), np.clip(codes, 1, _LARGEST_CODE), 0).astype(np.uint16)
    return _message(header, "32FC1", codes, float(a), float(b))


def compressed_raw_depth_message(header: Header, millimetres: np.ndarray) -> CompressedImage:
    """16UC1 millimetres (H, W), without loss."""
    return _message(header, "16UC1", millimetres, 0.0, 0.0)


def compressed_color_message(header: Header, bgr: np.ndarray, quality: int = 90) -> CompressedImage:
    """A JPEG of (H, W, 3) uint8 BGR; quality from 0 to 100."""
    message = CompressedImage(header=header, format="bgr8; jpeg compressed bgr8")
    fill(message, _encoded(".jpg", bgr, cv2.IMWRITE_JPEG_QUALITY, quality))
    return message


def decompressed_depth(image: CompressedImage | cdr.CompressedImage) -> RawImage:
    """The depth image that a compressedDepth message holds, 16UC1 or 32FC1 with NaN where nothing is.

    Raises:
        MessageError: another format, or bytes that are none.
    """
    encoding, _, codec = (part.strip() for part in image.format.partition(";"))
    if encoding not in ("16UC1", "32FC1") or codec not in ("compressedDepth", "compressedDepth png"):
        raise MessageError(f"format '{image.format}', expected compressedDepth of 16UC1 or 32FC1 as PNG (not RVL)")
    data = np.frombuffer(image.data, np.uint8)
    try:
        codes = cv2.imdecode(data[_HEADER.size :], cv2.IMREAD_UNCHANGED)
    except cv2.error:
        codes = None
    if codes is None or codes.dtype != np.uint16 or codes.ndim != 2 or b"IEND" not in data[-64:].tobytes():
        raise MessageError(f"the {data.size} bytes of format '{image.format}' are not a whole PNG of 16 bits behind 12 bytes")
    if encoding == "32FC1":
        _, a, b = _HEADER.unpack(data[: _HEADER.size].tobytes())
        with np.errstate(divide="ignore", invalid="ignore"):
            codes = np.where(codes > 0, np.float32(a) / (codes - np.float32(b)), np.float32(np.nan))
    height, width = codes.shape
    pixels = codes.view(np.uint8).reshape(-1)
    return RawImage(image.header, height, width, encoding, sys.byteorder == "big", width * codes.itemsize, pixels)


def _message(header: Header, encoding: str, codes: np.ndarray, a: float, b: float) -> CompressedImage:
    # Up to Iron the format ends there; later readers take both (codec.cpp, decodeCompressedDepthImage).
    codec = "" if os.environ.get("ROS_DISTRO") in ("humble", "iron") else " png"
    message = CompressedImage(header=header, format=f"{encoding}; compressedDepth{codec}")
    fill(message, _HEADER.pack(_INVERSE_DEPTH, a, b), _encoded(".png", codes, cv2.IMWRITE_PNG_COMPRESSION, _PNG_LEVEL))
    return message


def _encoded(kind: str, image: np.ndarray, option: int, value: int) -> np.ndarray:
    good, data = cv2.imencode(kind, image, [option, value])
    if not good:
        raise MessageError(f"OpenCV could not encode a {image.shape} image as {kind}")
    return data
