# SPDX-License-Identifier: Apache-2.0
"""A camera for people without one: frames from procedural scenes, image files, a video, or a webcam. No ROS."""

from __future__ import annotations

import glob
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from .families import HELD_OUT_SEED, PLACES, random_scene
from .photograph import photograph
from .raycast import render
from .scenes import Scene, View, drive

VIDEO_SUFFIXES = {".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v"}
_IMAGE = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}


class SourceError(ValueError):
    """A source that cannot be opened; the message says what was expected."""


@dataclass(frozen=True)
class Shot:
    """One frame: rgb (H, W, 3) uint8, and if it is known exactly, depth (H, W) float32 metres along z (+Inf: sky) and the
    focal length in pixels (principal point in the middle)."""

    rgb: np.ndarray
    depth: np.ndarray | None = None
    focal: float | None = None


def open_source(source: str, max_width: int = 1280) -> Iterator[Shot]:
    """Frames of a file, a folder, a glob pattern of images, a video, or a webcam ("0", "/dev/video0"), once through.

    Args:
        source: what to read.
        max_width: wider images are scaled down to it, keeping their aspect ratio; 0: never.

    Raises:
        SourceError: nothing there that can be read.
    """
    if source.isdigit() or source.startswith("/dev/video") or Path(source).suffix.lower() in VIDEO_SUFFIXES:
        return _from_video(int(source) if source.isdigit() else source, max_width)
    path = Path(source)
    if path.is_dir():
        files = sorted(str(file) for file in path.iterdir() if file.suffix.lower() in _IMAGE)
    else:
        files = sorted(glob.glob(source)) if not path.exists() else [source]
    if not files:
        raise SourceError(
            f"'{source}' is no image, video, folder of images, or webcam (expected e.g. photo.jpg, drive.mp4, /dev/video0)"
        )
    return _from_images(files, max_width)


def photographed_scene(seed: int, family: str | None, width: int, height: int) -> Shot:
    """One procedural scene as a camera of its own sees it, with exact depth; see `families.random_scene`."""
    scene, view = random_scene(seed, family)
    seen = render(scene, view, width, height)
    image = photograph(seen.rgb.permute(0, 3, 1, 2), torch.Generator().manual_seed(seed))
    return _shot(image[0], seen.depth[0], view)


def _shot(image: torch.Tensor, depth: torch.Tensor, view: View) -> Shot:
    """From (3, H, W) in [0, 1] and depth (H, W)."""
    rgb = np.ascontiguousarray((image * 255).byte().permute(1, 2, 0).numpy())
    return Shot(rgb, depth.numpy(), float(view.focal) * rgb.shape[1])


def render_scenes(
    seed: int,
    scenes: int,
    frames: int,
    width: int,
    height: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Shot]:
    """A short drive through each of several held-out scenes of all places: `scenes` x `frames` shots with exact depth.

    Scenes with something nearer than 2 m at the camera's height or above are passed over; a drive keeps 1.5 m.
    """
    shots: list[Shot] = []
    for index, (scene, view, room) in zip(range(scenes), _open_views(HELD_OUT_SEED + seed)):
        views = drive(view, frames, length=min(0.5, room - 1.5))
        generator = torch.Generator().manual_seed(seed + index)
        seen = []
        for frame in range(frames):
            seen.append(render(scene, views.at(frame), width, height))
            progress(index * frames + frame + 1, scenes * frames)
        images = photograph(torch.cat([shot.rgb for shot in seen]).permute(0, 3, 1, 2), generator, one_camera=True)
        shots += [_shot(image, shot.depth[0], view) for image, shot in zip(images, seen)]
    return shots


def _open_views(first_seed: int) -> Iterator[tuple[Scene, View, float]]:
    """Scenes, family after family, with at least 2 m of room at the camera's height and above, and how much that is."""
    for family, seed in zip(itertools.cycle(PLACES), itertools.count(first_seed)):
        for attempt in itertools.count(seed, 1000):
            scene, view = random_scene(attempt, family)
            room = float(render(scene, view, 32, 24, shadows=False).depth[0, :13].min())
            if room >= 2.0:
                yield scene, view, room
                break


def _fit(bgr: np.ndarray, max_width: int) -> Shot:
    height, width = bgr.shape[:2]
    if max_width and width > max_width:
        size = (max_width, round(height * max_width / width))
        bgr = cv2.resize(bgr, size, interpolation=cv2.INTER_AREA)
    return Shot(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))


def _from_images(files: list[str], max_width: int) -> Iterator[Shot]:
    for file in files:
        image = cv2.imread(file, cv2.IMREAD_COLOR)
        if image is None:
            raise SourceError(f"'{file}' cannot be read as an image")
        yield _fit(image, max_width)


def _from_video(source: str | int, max_width: int) -> Iterator[Shot]:
    if isinstance(source, str) and not Path(source).exists():
        raise SourceError(f"'{source}' does not exist")
    video = cv2.VideoCapture(source)
    if not video.isOpened():
        raise SourceError(f"'{source}' cannot be opened as a video or webcam")
    return _frames(video, max_width)


def _frames(video: cv2.VideoCapture, max_width: int) -> Iterator[Shot]:
    try:
        while True:
            good, image = video.read()
            if not good:
                return
            yield _fit(image, max_width)
    finally:
        video.release()
