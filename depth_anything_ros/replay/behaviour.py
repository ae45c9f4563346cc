# SPDX-License-Identifier: Apache-2.0
"""How the depth of one camera behaves from image to image, in numbers: timing, range, flicker, scale; without ground truth."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

import cv2
import numpy as np

from ..messages.cdr import MessageError, read_header
from .bag_input import BagInput
from .look import Painter, Pair, Shot, fitted, read_depth, read_rgb
from .messages import Recorded, typestore

FLICKER_NS = 500_000_000
"""Depth images farther apart are of different views."""

GAP = 2.5
"""Times the median spacing: what is longer is a gap."""

SCALE = "diagnostic_msgs/msg/DiagnosticArray"
"""Type of depth/scale."""

_THUMBNAILS = 12
_THUMBNAIL = (240, 180)  # pixels that it has to fit into
_MOST_PIXELS = 100_000  # of a depth image that percentiles and flicker are taken of: an even selection


def _numbers(*names: str) -> dict[str, array]:
    return {name: array("d") for name in names}


@dataclass
class Behaviour:
    """What is remembered of a camera: some numbers for each image, and a few thumbnails.

    Attributes:
        bag: of the images.
        stamps: of the images as they were recorded, nanoseconds.
        with_depth: how many of them have depth.
        sizes: of depth images, such as "640x480" -> how many.
        depths: of each depth image its stamp, percentiles, and the share of invalid pixels, 0 to 1.
        flicker: of each depth image that has one before it at most `FLICKER_NS` earlier: see `add_flicker`.
        scale: of each message its stamp, a, and 1 if it is valid, else 0.
        thumbnails: (stamp, image, depth or None), (h, w, 3) uint8 BGR; evenly spaced over the bag.
    """

    pair: Pair
    painter: Painter
    bag: BagInput
    stamps: array = field(default_factory=lambda: array("q"))
    with_depth: int = 0
    sizes: dict[str, int] = field(default_factory=dict)
    depths: dict[str, array] = field(default_factory=lambda: _numbers("stamp", "p5", "median", "p95", "invalid"))
    flicker: dict[str, array] = field(default_factory=lambda: _numbers("stamp", "total", "local"))
    scale: dict[str, array] = field(default_factory=lambda: _numbers("stamp", "a", "valid"))
    thumbnails: list[tuple[int, np.ndarray, np.ndarray | None]] = field(default_factory=list)
    _seen: int = 0
    _before: tuple[int, np.ndarray] | None = None

    def __post_init__(self):
        count = -(-self.bag.counts.get(self.pair.image, 0) // self.pair.every)
        self._chosen = set(np.linspace(0, max(0, count - 1), min(_THUMBNAILS, count)).round().astype(int).tolist())

    def image(self, recorded: Recorded) -> np.ndarray | None:
        """(h, w, 3) uint8 BGR of an image that is to be shown, else None."""
        self._seen += 1
        if self._seen - 1 not in self._chosen:
            return None
        return cv2.cvtColor(fitted(read_rgb(self.bag, recorded), *_THUMBNAIL), cv2.COLOR_RGB2BGR)

    def add(self, shot: Shot) -> None:
        """An image has met its depth, or never will."""
        self.stamps.append(shot.stamp_ns)
        self.with_depth += shot.depth is not None
        if shot.image is not None:
            self.thumbnails.append((shot.stamp_ns, shot.image, shot.depth))

    def depth(self, recorded: Recorded) -> np.ndarray:
        """Take in a depth image; gives it small and in colours."""
        depth, stamp_ns = read_depth(self.pair, recorded), read_header(recorded.cdr).stamp_ns
        size = f"{depth.shape[1]}x{depth.shape[0]}"
        self.sizes[size] = self.sizes.get(size, 0) + 1
        stride = max(1, int(np.ceil(np.sqrt(depth.size / _MOST_PIXELS))))
        some = np.ascontiguousarray(depth[::stride, ::stride])
        valid = some[np.isfinite(some)]
        low, middle, high = np.percentile(valid, (5, 50, 95)) if valid.size else (np.nan,) * 3
        _append(self.depths, stamp_ns, low, middle, high, 1 - np.isfinite(depth).mean())
        if self._before and 0 < stamp_ns - self._before[0] <= FLICKER_NS and self._before[1].shape == some.shape:
            self.add_flicker(stamp_ns, self._before[1], some)
        self._before = stamp_ns, some
        return self.painter.paint(fitted(depth, *_THUMBNAIL, nearest=True))

    def add_flicker(self, stamp_ns: int, before: np.ndarray, now: np.ndarray) -> None:
        """Of two depth images (H, W), r = ln(now / before) over the pixels valid in both: medians of |r| and |r - median r|."""
        both = (before > 0) & (now > 0)  # NaN is not; inverse depth may be negative
        if both.any():
            ratio = np.log(now[both] / before[both])
            _append(self.flicker, stamp_ns, np.median(np.abs(ratio)), np.median(np.abs(ratio - np.median(ratio))))

    def add_scale(self, recorded: Recorded) -> None:
        """Take in a message on what the scale is."""
        try:
            message = typestore().deserialize_cdr(recorded.cdr, "diagnostic_msgs/msg/DiagnosticArray")
            values = {pair.key: pair.value for status in message.status for pair in status.values}
            a, valid = float(values["a"]), values["valid"] == "true"
        except KeyError as error:
            raise MessageError(f"no value {error}") from error
        except Exception as error:  # of damaged bytes rosbags has no kind of its own
            raise MessageError(f"not a scale: {error}") from error
        stamp = message.header.stamp
        _append(self.scale, stamp.sec * 10**9 + stamp.nanosec, a, valid)


def _append(table: dict[str, array], *values: float) -> None:
    for column, value in zip(table.values(), values):
        column.append(value)


def events(stamps: np.ndarray) -> tuple[float, list[tuple[str, int, float]]]:
    """Median spacing of stamps in seconds (NaN if there is none), and where they are not as they should be.

    Args:
        stamps: (N,) int64 nanoseconds, as they were recorded.

    Returns:
        the median of what is positive; and (what, index of the later image, its spacing in seconds) of every gap (more than
        2.5 times the median), step backwards and repetition.
    """
    spacing = np.diff(stamps) / 1e9
    forward = spacing[spacing > 0]
    median = float(np.median(forward)) if forward.size else float("nan")
    found = []
    for index in np.flatnonzero((spacing <= 0) | (spacing > GAP * median)):
        what = "gap" if spacing[index] > 0 else "stamp repeats" if spacing[index] == 0 else "stamp goes back"
        found.append((what, int(index) + 1, float(spacing[index])))
    return median, found
