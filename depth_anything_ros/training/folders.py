# SPDX-License-Identifier: Apache-2.0
"""Folders of images with depth, in the layouts that are widespread."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from .samples import DataError, Pair

_IMAGES, _DEPTHS = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}, {".png", ".npy", ".tif", ".tiff"}
_IMAGE_FOLDERS, _DEPTH_FOLDERS = ("rgb", "image", "images", "color", "colour"), ("depth", "depths")
_TUM_PER_METRE = 5000.0  # https://cvg.cit.tum.de/data/datasets/rgbd-dataset/file_formats
_TUM_SECONDS = 0.02  # the largest difference of their `associate.py`

LAYOUTS = "rgb/NAME.png with depth/NAME.png or .npy; NAME.png with NAME_depth.png; rgb.txt with depth.txt (TUM RGB-D)"


def pairs_in(folder: Path, per_metre: float = 0.0, say: Callable[[str], object] = lambda line: None) -> list[Pair]:
    """The pairs of a folder by name, or by time where the layout has times.

    Args:
        per_metre: values per metre in integer depth files; 0: 1000, and 5000 in TUM RGB-D's layout.
        say: told in a line how many files are left out.

    Raises:
        DataError: none of `LAYOUTS`, or images without depth only.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder '{folder}'")
    if (folder / "rgb.txt").is_file() and (folder / "depth.txt").is_file():
        return _by_lists(folder, per_metre or _TUM_PER_METRE, say)
    images, depths = (_subfolder(folder, names) for names in (_IMAGE_FOLDERS, _DEPTH_FOLDERS))
    if images and not depths:
        raise DataError(f"there is no depth beside '{images}', expected {LAYOUTS}")
    if images and depths:
        of_depth = {file.stem: file for file in depths.iterdir() if file.suffix.lower() in _DEPTHS}
        of_image = {file.stem: file for file in images.iterdir() if file.suffix.lower() in _IMAGES}
    else:
        files = [file for file in folder.iterdir() if file.is_file()]
        of_depth = {
            file.stem.removesuffix("_depth"): file
            for file in files
            if file.stem.endswith("_depth") and file.suffix.lower() in _DEPTHS
        }
        of_image = {file.stem: file for file in files if not file.stem.endswith("_depth") and file.suffix.lower() in _IMAGES}
    if not of_image:
        raise DataError(f"there are no images in '{images or folder}', expected {LAYOUTS}")
    common = sorted((stem for stem in of_image if stem in of_depth), key=_by_number)
    if not common:
        example = f"'{next(iter(of_image.values())).name}' has none" + (
            f"; of others, {len(of_depth)} have" if of_depth else ""
        )
        raise DataError(f"no image in '{folder}' has depth of its own name ({example}), expected {LAYOUTS}")
    _left_out(folder, "images without depth", [of_image[stem] for stem in of_image if stem not in of_depth], say)
    _left_out(folder, "depth without an image", [of_depth[stem] for stem in of_depth if stem not in of_image], say)
    return [Pair(of_image[stem], of_depth[stem], per_metre or 1000.0) for stem in common]


def _left_out(folder: Path, what: str, files: list[Path], say: Callable[[str], object]) -> None:
    if files:
        say(f"{folder}: {len(files)} left out: {what}, such as '{min(files).name}'")


def _by_number(stem: str) -> list[str | int]:
    """frame2 before frame10: the order of time, which is what is held out by."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", stem)]


def _subfolder(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _by_lists(folder: Path, per_metre: float, say: Callable[[str], object]) -> list[Pair]:
    """TUM RGB-D: two lists of "time file"; each image goes with the depth of the nearest time."""
    images, depths = (_listed(folder, name) for name in ("rgb.txt", "depth.txt"))
    pairs, alone = [], []
    for time, image in images if depths else []:
        nearest, depth = min(depths, key=lambda entry: abs(entry[0] - time))
        if abs(nearest - time) <= _TUM_SECONDS:
            pairs.append(Pair(image, depth, per_metre))
        else:
            alone.append(image)
    if not pairs:
        raise DataError(
            f"no image of '{folder / 'rgb.txt'}' has depth within {_TUM_SECONDS:g} s: {len(images)} images, {len(depths)} depth"
        )
    _left_out(folder, f"images without depth within {_TUM_SECONDS:g} s", alone, say)
    return pairs


def _listed(folder: Path, name: str) -> list[tuple[float, Path]]:
    found = []
    for number, line in enumerate((folder / name).read_text().splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            found.append((float(words[0]), folder / words[1]))
        except (ValueError, IndexError) as error:
            raise DataError(f"'{folder / name}', line {number}: '{line}', expected a time and a file") from error
    return sorted(found)
