# SPDX-License-Identifier: Apache-2.0
"""`depth_image photo.jpg …`: a picture and an array of depth for each photo. No ROS."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

from .command_line import add_network_options, chosen_estimator
from .geometry import COLORMAPS, AdaptiveRange, Camera
from .inference import DepthEstimator, ImageError, InferenceError
from .models import METRIC, ModelError
from .outputs import ColorSettings, Outputs, OutputSettings
from .pipeline import DepthSettings, Frame, Refiner, RefineSettings, Side

_SKY = 1000.0  # metres; what is farther is no part of the picture's range


def main(args: list[str] | None = None) -> int:
    """Write `<name>_depth.png` (colour) and `<name>_depth.npy` ((H, W) float32) beside each photo or into --output."""
    parser = argparse.ArgumentParser(
        prog="depth_image", description="Depth of photos, as a colour picture and a float32 array."
    )
    parser.add_argument("images", nargs="+", type=Path, help="photos")
    parser.add_argument("--output", type=Path, help="folder for the results (default: beside each photo)")
    add_network_options(parser, "v2_metric_indoor")
    parser.set_defaults(backend="torch")  # others compile longer than a photo takes
    parser.add_argument(
        "--fov-deg", type=float, default=0.0, help="horizontal field of view, for networks that make metres of it"
    )
    parser.add_argument("--colormap", default="turbo", choices=COLORMAPS)
    options = parser.parse_args(args)
    if not 0 <= options.fov_deg <= 170:
        parser.error(f"--fov-deg {options.fov_deg:g} is not between 0 (unknown) and 170")
    try:
        estimator = chosen_estimator(options)
    except (ModelError, ValueError) as error:
        print(f"depth_image: {error}", file=sys.stderr)
        return 2
    licence = estimator.network.model.licence(estimator.encoder)
    print(f"{estimator.model}/{estimator.encoder} on {estimator.device}, licence of the weights: {licence}")
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
    return max([_convert(path, options, estimator) for path in options.images])


def _convert(path: Path, options: argparse.Namespace, estimator: DepthEstimator) -> int:
    """One photo; 1 if it could not be read or predicted."""
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        print(f"depth_image: '{path}' cannot be read as an image", file=sys.stderr)
        return 1
    rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    try:
        camera = Camera.from_fov(rgb.shape[1], rgb.shape[0], options.fov_deg) if options.fov_deg else None
        prediction = estimator.predict(rgb, camera and (camera.fx, camera.fy))
    except (ImageError, InferenceError) as error:
        print(f"depth_image: '{path}': {error}", file=sys.stderr)
        return 1
    values = prediction.at_image_size()
    near, far = np.percentile(values[values < _SKY] if (values < _SKY).any() else values, (2, 98))
    color = ColorSettings(options.colormap, float(near), float(max(far, near + 1e-3)))
    frame = Frame(rgb)
    refined = Refiner().refine(frame, prediction, RefineSettings(DepthSettings(0.0, np.inf)))
    outputs = Outputs(frame, prediction, refined, Side(), OutputSettings(color), AdaptiveRange())
    stem = (options.output or path.parent) / f"{path.stem}_depth"
    np.save(f"{stem}.npy", values)
    cv2.imwrite(f"{stem}.png", outputs.color)
    unit = " m" if prediction.kind == METRIC else " (inverse depth, no unit)"
    if prediction.estimated:
        print(f"{path}: focal length {prediction.focal[0]:.0f} pixels, the network's estimate")
    print(f"{path}: {values.min():.2f} to {values.max():.2f}{unit} -> {stem}.png, {stem.name}.npy")
    return 0


if __name__ == "__main__":
    sys.exit(main())
