# SPDX-License-Identifier: Apache-2.0
"""Camera images of every encoding -> RGB arrays: the built-in converter, which needs NumPy and OpenCV only."""

from __future__ import annotations

import cv2
import numpy as np

from .cdr import CompressedImage, MessageError, RawImage

# encoding -> (channels, bits per channel, OpenCV conversion to RGB). ROS names a Bayer pattern by its first row, OpenCV by
# the second row's second and third pixel: bayer_rggb is OpenCV's BayerBG.
ENCODINGS = {
    "rgb8": (3, 8, None),
    "bgr8": (3, 8, cv2.COLOR_BGR2RGB),
    "rgba8": (4, 8, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, 8, cv2.COLOR_BGRA2RGB),
    "mono8": (1, 8, cv2.COLOR_GRAY2RGB),
    "8UC1": (1, 8, cv2.COLOR_GRAY2RGB),
    "rgb16": (3, 16, None),
    "bgr16": (3, 16, cv2.COLOR_BGR2RGB),
    "rgba16": (4, 16, cv2.COLOR_RGBA2RGB),
    "bgra16": (4, 16, cv2.COLOR_BGRA2RGB),
    "mono16": (1, 16, cv2.COLOR_GRAY2RGB),
    "yuv422": (2, 8, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": (2, 8, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": (2, 8, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": (2, 8, cv2.COLOR_YUV2RGB_YUY2),
}
for _pattern, _code in (
    ("rggb", cv2.COLOR_BayerBG2RGB),
    ("bggr", cv2.COLOR_BayerRG2RGB),
    ("gbrg", cv2.COLOR_BayerGR2RGB),
    ("grbg", cv2.COLOR_BayerGB2RGB),
):
    ENCODINGS[f"bayer_{_pattern}8"] = (1, 8, _code)
    ENCODINGS[f"bayer_{_pattern}16"] = (1, 16, _code)


def pixels_of(image: RawImage) -> np.ndarray:
    """The pixels as they are: (H, W) or (H, W, channels), uint8 or uint16 in this machine's byte order; a view if possible.

    Raises:
        MessageError: unknown encoding, empty image, a step shorter than a row, or less data than rows.
    """
    if image.encoding not in ENCODINGS:
        raise MessageError(f"unknown encoding '{image.encoding}', expected a colour or grey image: {', '.join(ENCODINGS)}")
    channels, bits, _ = ENCODINGS[image.encoding]
    height, width, step = image.height, image.width, image.step
    row = width * channels * bits // 8
    if height == 0 or width == 0:
        raise MessageError(f"the image is empty ({width}x{height})")
    if step < row:
        raise MessageError(f"step is {step} bytes, but a row of {width} {image.encoding} pixels takes {row}")
    if image.data.size < step * height:
        raise MessageError(f"data holds {image.data.size} bytes, but {height} rows of {step} bytes take {step * height}")
    pixels = image.data[: step * height].reshape(height, step)[:, :row]
    if bits == 16:
        pixels = np.ascontiguousarray(pixels).view(">u2" if image.is_bigendian else "<u2")
        pixels = pixels.astype(np.uint16, copy=False) if pixels.dtype.isnative else pixels.byteswap().view(np.uint16)
    return pixels.reshape(height, width, channels) if channels > 1 else pixels


def image_to_rgb(image: RawImage) -> np.ndarray:
    """(H, W, 3) uint8 RGB, C-contiguous; a view of the message where its layout is that already.

    16-bit images are scaled by 255 / 65535, as cv_bridge does.

    Raises:
        MessageError: as `pixels_of`, or an image that its encoding does not allow (YUV of odd width).
    """
    pixels = pixels_of(image)
    _, bits, conversion = ENCODINGS[image.encoding]
    if conversion is not None:
        try:
            pixels = cv2.cvtColor(np.ascontiguousarray(pixels), conversion)
        except cv2.error as error:
            raise MessageError(f"a {image.width}x{image.height} image cannot be {image.encoding}: {error.err}") from error
    if bits == 16:
        pixels = cv2.convertScaleAbs(pixels, alpha=255 / 65535)
    return np.ascontiguousarray(pixels)


def compressed_to_rgb(image: CompressedImage) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a JPEG or PNG. The format string is only asked for the channel order, as writers differ.

    Raises:
        MessageError: no image, a truncated one, or a format that is not for cameras.
    """
    if "compressedDepth" in image.format:
        raise MessageError(f"format '{image.format}' is a depth image, expected a JPEG or PNG from a camera")
    data = image.data
    end = data.tobytes().rstrip(b"\0")[-64:]  # webcams pad their JPEGs with zeros
    truncated = data[:2].tobytes() == b"\xff\xd8" and b"\xff\xd9" not in end
    truncated |= data[:4].tobytes() == b"\x89PNG" and b"IEND" not in end
    if truncated:  # OpenCV would decode it and leave the rest grey
        raise MessageError(f"the compressed image is truncated ({data.size} bytes, format '{image.format}')")
    try:
        pixels = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION) if data.size else None
    except cv2.error:
        pixels = None
    if pixels is None:
        raise MessageError(f"the {data.size} bytes of format '{image.format}' cannot be decoded, expected a JPEG or PNG")
    return pixels if "compressed rgb" in image.format else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
