# SPDX-License-Identifier: Apache-2.0
"""Image messages straight from their serialised bytes, without a copy of the pixels.

A subscription with `raw=True` and a bag both hand over CDR. Reading the few fields here leaves the pixels where they are;
deserialising the whole message copies them, and with field checks on (Humble) takes longer than a GPU needs for the network.
Formats: OMG DDSI-RTPS 10.2 (encapsulation), OMG CDR; sensor_msgs/msg/Image and CompressedImage.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np


class MessageError(ValueError):
    """A message that says something impossible about itself; the text says what, and what was expected."""


@dataclass(frozen=True)
class ImageHeader:
    """std_msgs/Header: acquisition time and optical frame."""

    sec: int
    nanosec: int
    frame_id: str

    @property
    def stamp_ns(self) -> int:
        """Nanoseconds since the clock's epoch."""
        return self.sec * 1_000_000_000 + self.nanosec


@dataclass(frozen=True)
class RawImage:
    """sensor_msgs/Image; `data` is a view into the serialised bytes."""

    header: ImageHeader
    height: int
    width: int
    encoding: str
    is_bigendian: bool
    step: int
    data: np.ndarray


@dataclass(frozen=True)
class CompressedImage:
    """sensor_msgs/CompressedImage; `data` is a view into the serialised bytes."""

    header: ImageHeader
    format: str
    data: np.ndarray


def read_header(cdr: bytes) -> ImageHeader:
    """The header that every stamped message begins with.

    Raises:
        MessageError: the bytes are too few for one.
    """
    return _Reader(cdr).header()


def read_image(cdr: bytes) -> RawImage:
    """A serialised sensor_msgs/Image.

    Raises:
        MessageError: the bytes are not one.
    """
    reader = _Reader(cdr)
    header = reader.header()
    height, width, encoding = reader.uint32(), reader.uint32(), reader.string()
    is_bigendian, step = reader.uint8() != 0, reader.uint32()
    return RawImage(header, height, width, encoding, is_bigendian, step, reader.octets())


def read_compressed_image(cdr: bytes) -> CompressedImage:
    """A serialised sensor_msgs/CompressedImage.

    Raises:
        MessageError: the bytes are not one.
    """
    reader = _Reader(cdr)
    return CompressedImage(reader.header(), reader.string(), reader.octets())


class _Reader:
    """Walks through CDR; members are aligned to their own size, counted from behind the 4-byte encapsulation header."""

    def __init__(self, cdr: bytes):
        if len(cdr) < 4 or cdr[0] != 0 or cdr[1] not in (0, 1, 6, 7):
            raise MessageError(f"not plain CDR: encapsulation {bytes(cdr[:2]).hex() or 'missing'}")
        self._bytes, self._at, self._order = memoryview(cdr)[4:], 0, "<" if cdr[1] & 1 else ">"

    def _take(self, count: int) -> memoryview:
        if self._at + count > len(self._bytes):
            raise MessageError(f"the serialised message ends at {len(self._bytes)} bytes, expected {self._at + count} at least")
        self._at += count
        return self._bytes[self._at - count : self._at]

    def uint8(self) -> int:
        return self._take(1)[0]

    def uint32(self, kind: str = "I") -> int:
        self._at += -self._at % 4
        return struct.unpack(self._order + kind, self._take(4))[0]

    def string(self) -> str:
        return bytes(self._take(self.uint32())).rstrip(b"\0").decode("utf-8", "replace")

    def octets(self) -> np.ndarray:
        return np.frombuffer(self._take(self.uint32()), np.uint8)

    def header(self) -> ImageHeader:
        return ImageHeader(self.uint32("i"), self.uint32(), self.string())
