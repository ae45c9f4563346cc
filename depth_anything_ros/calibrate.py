# SPDX-License-Identifier: Apache-2.0
"""`calibrate photo.jpg 320,240=1.50 …`: the scale of a network on a camera, from distances that were measured by hand. No ROS.

Writes the parameters `scale.*` as YAML. From a range sensor, the running node does the same: its service `calibrate`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

import cv2
import numpy as np

from .command_line import add_network_options, chosen_estimator
from .geometry import Camera, Fit, FitError, fit_inverse_depth, sample_grid
from .inference import DepthEstimator, ImageError, InferenceError
from .models import CANONICAL, METRIC, ModelError

_POINT = re.compile(r"(\d+),(\d+)=([0-9.]+)")


def calibration_text(fit: Fit, network: str, checkpoint: str, focal: float, said: str) -> str:
    """The YAML of a calibration, as the node takes it by params_file.

    Args:
        network: as predictions name it; checkpoint: the user's own file, or empty.
        focal: of the camera, in short sides of the image; 0: unknown.
        said: a line about where it comes from.
    """
    model, encoder, input_size = network.split("/")[:3]
    lines = (
        f"# {said}: {fit.inliers} of {fit.points} points agree, off by {fit.residual:.1%} (median).",
        "/**:",
        "  ros__parameters:",
        f'    model: "{model}"',
        f'    encoder: "{encoder}"',
        *([f"    checkpoint: {json.dumps(str(Path(checkpoint).expanduser().absolute()))}"] if checkpoint else []),
        f"    input_size: {input_size}",
        "    scale:",
        "      source: fixed",
        f"      a: {fit.a!r}",
        f"      b: {fit.b!r}",
        f"      network: {network}",
        f"      focal: {round(focal, 4)!r}",
    )
    return "\n".join(lines) + "\n"


def write_calibration(path: str | Path, text: str) -> Path:
    """Write a calibration, making its folder; the path as it is without `~`.

    Raises:
        OSError: it cannot be written there.
    """
    path = Path(path).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def main(args: list[str] | None = None) -> int:
    """Fit, say how well the points agree, write the YAML."""
    parser = argparse.ArgumentParser(
        prog="calibrate",
        description="Scale of depth from distances measured by hand, along the camera's axis: photos of the robot's camera, "
        "each followed by its points as u,v=metres.",
    )
    parser.add_argument("measured", nargs="+", help="photo.jpg u,v=metres [u,v=metres ...] [photo2.jpg ...]")
    parser.add_argument("--output", default="depth_scale.yaml", help="default: %(default)s")
    add_network_options(parser, "v2")
    parser.set_defaults(backend="torch")  # others compile longer than some photos take
    parser.add_argument(
        "--fov-deg", type=float, default=0.0, help="the camera's horizontal field of view; binds the result to it"
    )
    options = parser.parse_args(args)
    if not 0 <= options.fov_deg <= 170:
        parser.error(f"--fov-deg {options.fov_deg:g} is not between 0 (unknown) and 170")
    try:
        photos = _measured(options.measured)
        estimator = chosen_estimator(options)
        inverse, truth, focal, relative = _pairs(photos, estimator, options.fov_deg)
        fit = fit_inverse_depth(inverse, truth, shift=relative)
        for said, metres in zip(1 / (fit.a * inverse + fit.b), 1 / truth):
            print(f"measured {metres:.3f} m, now {said:.3f} m ({said / metres - 1:+.1%})")
        if 2 * fit.inliers <= len(truth) or fit.inliers < 1 + relative:
            raise FitError(f"{fit.inliers} of {fit.points} points agree: measure again, or more of them")
        path = write_calibration(
            options.output, calibration_text(fit, estimator.name, options.checkpoint, focal, "From distances measured by hand")
        )
    except (ModelError, ImageError, InferenceError, OSError, ValueError) as error:  # FitError is a ValueError
        print(f"calibrate: {error}", file=sys.stderr)
        return 2
    print(f"1 / z = {fit.a:.6g} * inverse + {fit.b:.6g}  ->  {path}")
    return 0


def _measured(words: list[str]) -> dict[str, list[tuple[int, int, float]]]:
    photos: dict[str, list[tuple[int, int, float]]] = {}
    photo = ""
    for word in words:
        point = _POINT.fullmatch(word)
        if not point:
            photo = word
            photos.setdefault(photo, [])
        elif not photo:
            raise ValueError(f"'{word}' comes before any photo")
        else:
            photos[photo].append((int(point[1]), int(point[2]), float(point[3])))
    for photo, points in photos.items():
        if not points:
            raise ValueError(f"no points for '{photo}': expected u,v=metres behind it, such as 320,240=1.50")
    return photos


def _pairs(photos: dict, estimator: DepthEstimator, fov_deg: float) -> tuple[np.ndarray, np.ndarray, float, bool]:
    """The network's inverse depth and 1 / metres at every point, the camera's focal length in short sides (0: unknown), and
    whether the network's scale and shift are unknown.
    """
    inverse, truth, focal, relative = [], [], 0.0, False
    for photo, points in photos.items():
        bgr = cv2.imread(photo, cv2.IMREAD_COLOR)
        if bgr is None:
            raise ValueError(f"'{photo}' cannot be read as an image")
        camera = Camera.from_fov(bgr.shape[1], bgr.shape[0], fov_deg) if fov_deg else None
        focal = camera.focal if camera else 0.0
        prediction = estimator.predict(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), camera and (camera.fx, camera.fy))
        if estimator.network.model.kind == CANONICAL and not camera:
            raise ValueError(f"model '{estimator.model}' makes metres of the focal length: give --fov-deg, as camera_info says")
        relative = prediction.kind != METRIC
        values = prediction.tensor if relative else 1 / prediction.tensor
        pixels = np.array([point[:2] for point in points], np.float64)
        found = sample_grid(values, pixels, prediction.image_size, prediction.align_corners)
        if not np.isfinite(found).all():
            raise ValueError(f"'{photo}' is {bgr.shape[1]}x{bgr.shape[0]} pixels, and a point lies outside of it")
        inverse += list(found)
        truth += [1 / point[2] if point[2] > 0 else np.nan for point in points]
    if not np.isfinite(truth).all():
        raise FitError("a distance of 0 m, expected metres from the camera's lens along its axis")
    return np.array(inverse), np.array(truth), focal, relative


if __name__ == "__main__":
    sys.exit(main())
