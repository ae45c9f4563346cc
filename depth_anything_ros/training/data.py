# SPDX-License-Identifier: Apache-2.0
"""From paths of bags and folders to pairs for training and pairs that are held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .folders import pairs_in
from .samples import Bounds, DataError, Pair, Survey, split, survey

_MOST_HELD_OUT = 100  # images; of more, an even selection: a validation must not take longer than the training between two


@dataclass(frozen=True)
class Data:
    """What there is to train on.

    Attributes:
        training, held_out: in the order of time.
        found: in those for training.
        focal: of the camera of those for training, in short sides of the image; 0: unknown, or not always the same.
        facts: about each bag, and what was left out of a folder, in words.
    """

    training: list[Pair]
    held_out: list[Pair]
    found: Survey
    focal: float
    facts: tuple[str, ...]


def is_bag(path: Path) -> bool:
    """Whether a path is of a recording, and not of a folder of images."""
    if not path.is_dir():
        return True
    return (path / "metadata.yaml").exists() or any({".mcap", ".db3"} & set(file.suffixes) for file in path.iterdir())


def gather(
    paths: Sequence[Path],
    validation: str,
    open_bag: Callable[[Path], tuple[Path, dict]],
    bounds: Bounds,
    per_metre: float = 0.0,
    progress: Callable[[], object] = lambda: None,
) -> Data:
    """All pairs, looked at once.

    Args:
        validation: a share of each recording, such as "0.2", or the path of another one.
        open_bag: extracts a bag into a folder; returns that, and what `bags.extract` says.
        per_metre: see `folders.pairs_in`.

    Raises:
        DataError: they cannot be trained on; BagError: a bag cannot be read.
    """
    share = _share(validation)
    other = [] if share else [Path(validation)]
    _check_once([*paths, *other])
    facts: list[str] = []

    def pairs_of(path: Path) -> tuple[list[Pair], float]:
        """Of a recording, and the focal length of its camera."""
        if not path.exists():
            raise DataError(f"there is no '{path}', expected a share or another recording for --validation")
        if not is_bag(path):
            return pairs_in(path, per_metre, facts.append), 0.0
        folder, said = open_bag(path)
        left_out = "; ".join(f"{count} left out: {reason}" for reason, count in said["left_out"].items())
        facts.append(", ".join(filter(None, (f"{path}: {said['image']} with {said['depth']}", left_out, *said["damage"]))))
        return pairs_in(folder), said["focal"]

    training, held_out, focals = [], [], []
    for path in paths:
        pairs, focal = pairs_of(path)
        focals.append(focal)
        try:
            first, last = split(pairs, share) if share else (pairs, [])
        except DataError as error:
            raise DataError("; ".join([str(error), *facts])) from error
        training += first
        held_out += last
    for path in other:
        held_out = pairs_of(path)[0]
    if len(held_out) > _MOST_HELD_OUT:
        held_out = [held_out[index] for index in np.linspace(0, len(held_out) - 1, _MOST_HELD_OUT).round().astype(int)]
    found = survey(training, bounds, progress)
    try:
        size = survey(held_out, bounds, progress).size
    except DataError as error:
        raise DataError(f"of the images held out: {error}") from error
    if found.size != size:
        sizes = " and ".join(f"{width}x{height}" for width, height in (found.size, size))
        raise DataError(f"images to train on and images held out are of different cameras: {sizes}")
    same = bool(focals) and min(focals) > 0 and max(focals) < 1.01 * min(focals)
    return Data(training, held_out, found, float(np.mean(focals)) if same else 0.0, tuple(facts))


def _check_once(paths: Sequence[Path]) -> None:
    """What is trained on says nothing of what has never been seen, and nothing counts twice."""
    seen = set()
    for path in paths:
        if path.resolve() in seen:
            raise DataError(f"'{path}' is named twice: what is held out has to be another recording than those to train on")
        seen.add(path.resolve())


def _share(validation: str) -> float:
    """The share that is held out; 0: `validation` is a path."""
    try:
        share = float(validation)
    except ValueError:
        return 0.0
    if not 0 < share < 1:
        raise DataError(f"--validation is {validation}, expected a share between 0 and 1, or the path of another recording")
    return share
