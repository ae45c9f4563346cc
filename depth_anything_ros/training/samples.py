# SPDX-License-Identifier: Apache-2.0
"""Images with a sensor's depth of the same pixels: how a pair is read, what counts, and which are held out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

_FARTHEST_MEDIAN = 1000.0  # metres; beyond, somebody's millimetres were taken for metres
_NEAREST_MEDIAN = 0.02
_FEWEST_ROWS = 8  # of depth, and columns: of fewer, every ratio is the image's within a pixel
_SECTIONS = 4  # of a recording, each with a part that is held out: more places are seen than at its end alone


class DataError(ValueError):
    """Data that cannot be trained on; the message says what was expected and what to do."""


@dataclass(frozen=True)
class Pair:
    """Files of one image and of its depth. `per_metre`: what integers in the depth file stand for."""

    image: Path
    depth: Path
    per_metre: float = 1000.0


@dataclass(frozen=True)
class Bounds:
    """Metres of depth that count."""

    nearest: float = 0.1
    farthest: float = math.inf

    def valid(self, depth: np.ndarray) -> np.ndarray:
        """(H, W) bool: neither 0, NaN nor Inf, and within the bounds."""
        with np.errstate(invalid="ignore"):
            return np.isfinite(depth) & (depth > 0) & (depth >= self.nearest) & (depth <= self.farthest)


@dataclass(frozen=True)
class Survey:
    """What `survey` found. `size`: (width, height) of the images; `median`: of all depth, metres; `valid`: share of pixels."""

    size: tuple[int, int]
    median: float
    valid: float


def read_image(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB.

    Raises:
        DataError: it cannot be read.
    """
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)  # as its depth lies, and a camera's topic
    if bgr is None:
        raise DataError(f"'{path}' cannot be read as an image")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def write_picture(path: Path, pixels: np.ndarray) -> None:
    """Write an image, (H, W) or (H, W, 3) BGR.

    Raises:
        OSError: it cannot be written.
    """
    if not cv2.imwrite(str(path), pixels):
        raise OSError(f"'{path}' could not be written: is the disk full?")


def read_depth(pair: Pair) -> np.ndarray:
    """(H, W) float32 metres; invalid pixels as they are in the file.

    Raises:
        DataError: it cannot be read, or is no depth image.
    """
    path = pair.depth
    if path.suffix.lower() == ".npy":
        try:
            depth = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"'{path}' cannot be read as an array: {error}") from error
        if depth.ndim != 2 or not np.issubdtype(depth.dtype, np.floating):
            raise DataError(f"'{path}' is {depth.shape} {depth.dtype}, expected (height, width) of floats in metres")
        return depth.astype(np.float32)
    depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if depth is None:
        raise DataError(f"'{path}' cannot be read as an image")
    if depth.ndim != 2 or depth.dtype != np.uint16:
        raise DataError(
            f"'{path}' is {depth.shape} {depth.dtype}, expected one channel of 16 bits, or metres as floats in .npy: 8 bits "
            "or colours are a picture of depth, not depth"
        )
    return depth.astype(np.float32) * np.float32(1 / pair.per_metre)


def read(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """The image (H, W, 3) uint8 RGB and its depth (h, w) float32 metres, of the same view.

    Raises:
        DataError: a file cannot be read, or the two are not of the same view.
    """
    rgb, depth = read_image(pair.image), read_depth(pair)
    (height, width), (h, w) = rgb.shape[:2], depth.shape
    if min(w, h) < _FEWEST_ROWS or abs(w * height - h * width) > max(width, height):  # more than a pixel
        raise DataError(
            f"'{pair.image}' is {width}x{height}, but '{pair.depth}' is {w}x{h}: expected depth of the image's own pixels, "
            "or fewer in the same ratio; register it to the colour camera first"
        )
    return rgb, depth


def survey(pairs: Sequence[Pair], bounds: Bounds, progress: Callable[[], object] = lambda: None) -> Survey:
    """Look at every pair once, so that an hour of training does not end at a bad file.

    Raises:
        DataError: there are none, images differ in size, nothing is valid, or the unit is wrong by the look of it.
    """
    if not pairs:
        raise DataError("there are no images with depth to train on")

    def look(pair: Pair) -> tuple[tuple[int, int], float, float]:
        rgb, depth = read(pair)
        progress()
        known = depth[np.isfinite(depth) & (depth > 0)]
        median = float(np.median(known)) if len(known) else math.nan
        return (rgb.shape[1], rgb.shape[0]), median, float(bounds.valid(depth).mean())

    with ThreadPoolExecutor(2) as pool:
        sizes, medians, shares = zip(*pool.map(look, pairs))
    for pair, size in zip(pairs, sizes):
        if size != sizes[0]:
            raise DataError(
                f"'{pairs[0].image}' is {sizes[0][0]}x{sizes[0][1]}, but '{pair.image}' is {size[0]}x{size[1]}: expected "
                "images of one camera, all of one size"
            )
    if all(math.isnan(median) for median in medians):
        raise DataError(f"no pixel of {len(pairs)} depth images is above 0 and finite: the sensor saw nothing")
    median = float(np.nanmedian(medians))
    if not _NEAREST_MEDIAN < median < _FARTHEST_MEDIAN:
        raise DataError(
            f"the median depth is {median:g} m, so the unit is wrong: expected metres in .npy and 32FC1, millimetres in "
            "16UC1, and in 16-bit PNG millimetres or what --depth-scale says (values per metre)"
        )
    valid = float(np.mean(shares))
    if not valid:
        raise DataError(
            f"no pixel of {len(pairs)} depth images lies within {bounds.nearest:g} to {bounds.farthest:g} m (the median is "
            f"{median:.3g} m): set --min-depth, --max-depth or --depth-scale"
        )
    return Survey(sizes[0], median, valid)


def split(pairs: Sequence[Pair], share: float) -> tuple[list[Pair], list[Pair]]:
    """(for training, held out) of the pairs of one recording in the order of time.

    Neighbours in time look alike, so whole stretches are held out: the last `share` of each quarter.

    Raises:
        DataError: too few pairs for both.
    """
    sections = max(1, min(_SECTIONS, len(pairs) // 20))
    training, held_out = [], []
    for section in range(sections):
        first, end = (round(len(pairs) * edge / sections) for edge in (section, section + 1))
        middle = end - max(1, round((end - first) * share))
        training += pairs[first:middle]
        held_out += pairs[middle:end]
    if not training or not held_out:
        raise DataError(f"{len(pairs)} images are too few to hold out {share:.0%} of them: record more, or name --validation")
    return training, held_out
