# SPDX-License-Identifier: Apache-2.0
"""What a network's metres have to do with the camera's focal length, in words."""

from __future__ import annotations

from ..geometry import CameraError
from ..inference import Prediction
from ..models import CANONICAL, METRIC, Model
from .image import PreparedImage

KINDS = {
    "relative": "relative: inverse depth of unknown scale and shift",
    "metric": "metric: metres, whatever the focal length",
    "canonical": "metric: metres by the focal length",
}


def focal_text(model: Model, prediction: Prediction, image: PreparedImage) -> str:
    """Which focal length a prediction was made with."""
    if model.kind != CANONICAL:
        return "not used"
    if prediction.focal is None:
        return "unknown: no metres"
    source = "the network's estimate" if prediction.estimated else "of the calibration" if image.calibrated else "assumed"
    return f"{prediction.focal[0]:.1f} pixels, {source}"


def check_focal(model: Model, image: PreparedImage) -> None:
    """Refuse an image whose calibration cannot give the focal length that a network makes metres of.

    Raises:
        CameraError: the calibration contradicts the image, or the lens is not a pinhole's: then neither it nor an estimate
            can be true.
    """
    if model.kind != CANONICAL:
        return
    if image.frame.camera and image.frame.camera.model:
        raise CameraError("this network's metres need a view without distortion: set camera.rectify to true, or take another")
    if model.says_fov and image.focal is None and image.contradicted:
        raise CameraError(image.problem[1])


def focal_problem(model: Model, prediction: Prediction, problem: tuple[str, str] | None) -> tuple[str, str] | None:
    """(kind, text) if a network lacks a focal length, or had to estimate it.

    Args:
        problem: of the image's calibration.
    """
    if model.kind != CANONICAL or not (prediction.estimated or prediction.kind != METRIC):
        return None
    why = problem[1] if problem else "no calibration"
    if prediction.estimated:
        return "focal length estimated", f"metres rest on the network's own estimate of the focal length: {why}"
    return "no focal length", f"no metres: this network makes them of the focal length, but {why}"
