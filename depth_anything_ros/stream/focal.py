# SPDX-License-Identifier: Apache-2.0
"""What a network's metres have to do with the camera's focal length, in words."""

from __future__ import annotations

from ..inference import Prediction
from ..models import CANONICAL, METRIC, Model

KINDS = {
    "relative": "relative: inverse depth of unknown scale and shift",
    "metric": "metric: metres, whatever the focal length",
    "canonical": "metric: metres by the focal length",
}


def focal_text(model: Model, prediction: Prediction) -> str:
    """Which focal length a prediction was made with."""
    if model.kind != CANONICAL:
        return "not used"
    if prediction.focal is None:
        return "unknown: no metres"
    source = "the network's estimate" if prediction.estimated else "of the calibration"
    return f"{prediction.focal[0]:.1f} pixels, {source}"


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
