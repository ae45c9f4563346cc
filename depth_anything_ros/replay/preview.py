# SPDX-License-Identifier: Apache-2.0
"""A film of a bag: camera and depth side by side. For looking at; measurements are in the report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from ..messages.cdr import MessageError, read_header
from ..outputs import ColorSettings
from .bag_input import BagInput
from .look import Painter, Pair, Shot, Shots, fitted, read_depth, read_rgb
from .messages import BagError, Recorded

_METRES = ColorSettings()
_WIDTHS = (320, 640)  # pixels of a panel; two stand side by side
_MOST_HEIGHT = 1440
_STRIP = 32  # pixels above each row, with its captions
_MARGIN = 8
_FIRST = 500  # images whose stamps tell the rate
_TRIES = 20  # images of a camera, of which the first readable one tells its aspect
_LIGHT, _DIM, _DARK = (235, 235, 235), (160, 160, 160), (36, 36, 36)


def write_preview(
    images: BagInput, depths: BagInput, pairs: Sequence[Pair], path: Path, color: ColorSettings = _METRES
) -> None:
    """Write an mp4 (MPEG-4 part 2), with a frame for each image of the camera that has most; the others show their newest.

    Args:
        images, depths: bags of the images and of the depths; may be the same.
        pairs: one row each, from the top down.
        path: ends in .mp4; what is there is replaced when the film is complete.
        color: metres that the ends of the colours stand for, all along the film: the default 0 to 10 m, or `choose_range`.
            Inverse depth has an adaptive range.

    Raises:
        BagError: no image can be read, or the film cannot be written.
    """
    rows = _rows(images, list(dict.fromkeys(pairs)), color)
    shots = Shots(
        (images, depths),
        list(rows),
        lambda pair, recorded: rows[pair].image(read_rgb(images, recorded)),
        lambda pair, recorded: rows[pair].depth(recorded),
    )
    clock = max(rows, key=lambda pair: images.counts.get(pair.image, 0))
    rate, first_ns, last_ns = _rate(images, clock), 0, None
    pictures = {pair: row.empty() for pair, row in rows.items()}
    film = _Film(Path(path), rate, (2 * rows[clock].width, sum(row.height for row in rows.values())))
    try:
        for shot in shots:
            first_ns = shot.stamp_ns if last_ns is None else first_ns
            pictures[shot.pair] = rows[shot.pair].draw(shot, first_ns)
            # While the clock's camera is silent, the others go on.
            if shot.pair == clock or last_ns is None or shot.time_ns - last_ns > 2e9 / rate:
                film.add(np.vstack(list(pictures.values())))
                last_ns = shot.time_ns
        film.finish()
    finally:
        film.discard()


@dataclass
class _Row:
    """A camera's strip with captions, and below it the image and its depth, each `width` pixels wide."""

    pair: Pair
    painter: Painter
    width: int
    panel_height: int

    @property
    def height(self) -> int:
        return _STRIP + self.panel_height

    def image(self, rgb: np.ndarray) -> np.ndarray:
        return cv2.cvtColor(fitted(rgb, self.width, self.panel_height), cv2.COLOR_RGB2BGR)

    def depth(self, recorded: Recorded) -> np.ndarray:
        return self.painter.paint(fitted(read_depth(self.pair, recorded), self.width, self.panel_height, nearest=True))

    def empty(self) -> np.ndarray:
        return self._assembled(None, "no image yet", None, "")

    def draw(self, shot: Shot, first_ns: int) -> np.ndarray:
        """(height, 2 width, 3) uint8 BGR; `first_ns`: the stamp that the film begins at."""
        picture = self._assembled(shot.image, "image cannot be read", shot.depth, "no depth")
        stamp = f"{shot.stamp_ns / 1e9:.3f} s   {(shot.stamp_ns - first_ns) / 1e9:+.3f} s"
        _write(picture, stamp, _DIM, right=self.width - _MARGIN)
        return picture

    def _assembled(self, image: np.ndarray | None, no_image: str, depth: np.ndarray | None, no_depth: str) -> np.ndarray:
        picture = np.zeros((self.height, 2 * self.width, 3), np.uint8)
        picture[:_STRIP] = _DARK
        for column, (panel, otherwise) in enumerate(((image, no_image), (depth, no_depth))):
            space = picture[_STRIP:, column * self.width : (column + 1) * self.width]
            if panel is None:
                space[:] = _DARK
                _write(space, otherwise, _LIGHT, middle=True)
                continue
            top, left = ((whole - part) // 2 for whole, part in zip(space.shape[:2], panel.shape[:2]))
            space[top : top + panel.shape[0], left : left + panel.shape[1]] = panel
        _write(picture, self.pair.name, _LIGHT, left=_MARGIN, most=self.width // 2 - 2 * _MARGIN)
        self._legend(picture[:, self.width :])
        return picture

    def _legend(self, space: np.ndarray) -> None:
        """From the right: the second end, the bar, the first end, and what it is about."""
        right = self.width - _MARGIN
        right = _write(space, self.painter.ends[1], _LIGHT, right=right) - _MARGIN
        bar = self.painter.bar(self.width * 2 // 5, 12)
        top = (_STRIP - bar.shape[0]) // 2
        space[top : top + bar.shape[0], right - bar.shape[1] : right] = bar
        right = _write(space, self.painter.ends[0], _LIGHT, right=right - bar.shape[1] - _MARGIN) - 2 * _MARGIN
        what = "relative, no unit" if self.pair.relative else "depth"
        _write(space, what, _DIM, left=_MARGIN, most=right - _MARGIN)


class _Film:
    """An mp4 under a temporary name, until it is complete."""

    def __init__(self, path: Path, rate: float, size: tuple[int, int]):
        if path.suffix.lower() != ".mp4":
            raise BagError(f"the film cannot be named '{path.name}': expected a name that ends in .mp4")
        self._path, self._part, self._frames = path, path.with_name(f".{path.stem}.{os.getpid()}.part.mp4"), 0
        self._writer = cv2.VideoWriter(str(self._part), cv2.VideoWriter_fourcc(*"mp4v"), rate, size)
        if not self._writer.isOpened():
            self.discard()
            why = "OpenCV here has no encoder mp4v" if path.parent.is_dir() else "there is no such folder"
            raise BagError(f"the film '{path}' cannot be opened for writing: {why}, or it may not be written to")

    def add(self, picture: np.ndarray) -> None:
        self._writer.write(picture)
        self._frames += 1

    def finish(self) -> None:
        """OpenCV does not say when a disk is full: the film itself has to."""
        self._writer.release()
        film = cv2.VideoCapture(str(self._part))
        written = int(film.get(cv2.CAP_PROP_FRAME_COUNT)) if film.isOpened() else 0
        film.release()
        if written != self._frames:
            raise BagError(f"the film '{self._path}' holds {written} of {self._frames} frames: is the disk full?")
        self._part.replace(self._path)

    def discard(self) -> None:
        self._writer.release()
        self._part.unlink(missing_ok=True)


def _rows(images: BagInput, pairs: Sequence[Pair], color: ColorSettings) -> dict[Pair, _Row]:
    """All panels equally wide, as wide as the widest image within `_WIDTHS`, and narrower rather than too high together."""
    sizes = {pair: _size_of(images, pair) for pair in pairs}
    known = [size for size in sizes.values() if size]
    if not known:
        topics = ", ".join(pair.image for pair in pairs)
        raise BagError(f"'{images.path}' has no image that can be read on {topics or 'any topic: no camera was given'}")
    sizes = {pair: size or known[0] for pair, size in sizes.items()}
    width = min(max(max(size[0] for size in known), _WIDTHS[0]), _WIDTHS[1])
    aspects = [height / wide for wide, height in sizes.values()]
    width = min(width, max(_WIDTHS[0], int((_MOST_HEIGHT - _STRIP * len(aspects)) / sum(aspects)))) // 2 * 2
    heights = (max(2, round(width * aspect / 2) * 2) for aspect in aspects)
    return {pair: _Row(pair, Painter(pair, color), width, height) for pair, height in zip(sizes, heights)}


def _size_of(images: BagInput, pair: Pair) -> tuple[int, int] | None:
    """(width, height) of a camera's first readable image."""
    for recorded in islice(images.messages(topics=[pair.image]), _TRIES):
        try:
            return read_rgb(images, recorded).shape[1::-1]
        except MessageError:
            continue
    return None


def _rate(images: BagInput, pair: Pair) -> float:
    """Frames per second of a film: as the camera's stamps say, between 1 and 60; 10 if they say nothing."""
    stamps = []
    for recorded in islice(images.messages(topics=[pair.image]), 0, _FIRST * pair.every, pair.every):
        try:
            stamps.append(read_header(recorded.cdr).stamp_ns)
        except MessageError:
            continue
    spacing = np.diff(np.array(stamps, np.int64))
    spacing = spacing[spacing > 0]
    return float(np.clip(1e9 / np.median(spacing), 1, 60)) if spacing.size else 10.0


def _write(space: np.ndarray, text: str, color, left: int = 0, right: int = 0, middle: bool = False, most: int = 0) -> int:
    """Text at the left, right-aligned, or in the middle, shortened to `most` pixels; gives where it begins."""
    font, size = cv2.FONT_HERSHEY_SIMPLEX, 0.6 if middle else 0.42
    wide = lambda it: cv2.getTextSize(it, font, size, 1)[0][0]  # noqa: E731
    if most and wide(text) > most:
        while text and wide(text + "...") > most:
            text = text[:-1]
        text += "..."
    height = space.shape[0] if middle else _STRIP
    left = (space.shape[1] - wide(text)) // 2 if middle else right - wide(text) if right else left
    cv2.putText(space, text, (left, height // 2 + 5), font, size, color, 1, cv2.LINE_AA)
    return left
