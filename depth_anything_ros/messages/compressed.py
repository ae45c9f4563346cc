# SPDX-License-Identifier: Apache-2.0
"""Compressed outputs, as image_transport's plugins write them: compressedDepth and JPEG.

Byte layout: compressed_depth_image_transport, `codec.cpp`: a header of an int32 and two float32 (A, B), then a 16-bit PNG of
the codes A / z + B, 0 for invalid; a reader takes A and B from the header.
"""

from __future__ import annotations

import os
import struct

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from .cdr import MessageError
from .outgoing import fill

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


def _message(header: Header, encoding: str, codes: np.ndarray, a: float, b: float) -> CompressedImage:
    # Up to Iron the format ends there; later readers take both (codec.cpp, decodeCompressedDepthImage).
    codec = "" if os.environ.get("ROS_DISTRO") in ("humble", "iron") else " png"
    message = CompressedImage(header=header, format=f"{encoding}; compressedDepth{codec}")
    fill(message, struct.pack("<iff", _INVERSE_DEPTH, a, b), _encoded(".png", codes, cv2.IMWRITE_PNG_COMPRESSION, _PNG_LEVEL))
    return message


def _encoded(kind: str, image: np.ndarray, option: int, value: int) -> np.ndarray:
    good, data = cv2.imencode(kind, image, [option, value])
    if not good:
        raise MessageError(f"OpenCV could not encode a {image.shape} image as {kind}")
    return data
