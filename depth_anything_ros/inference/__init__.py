# SPDX-License-Identifier: Apache-2.0
"""Running a depth network on images. No ROS."""

from .backends import BACKENDS, PRECISIONS, candidates
from .determinism import make_deterministic
from .estimator import DepthEstimator, InferenceError
from .memory import keep_large_buffers, release_memory
from .prediction import Features, Focal, Prediction
from .preprocessing import ImageError, network_size, normalize_exposure, preprocess

__all__ = [
    "BACKENDS",
    "PRECISIONS",
    "DepthEstimator",
    "Features",
    "Focal",
    "ImageError",
    "InferenceError",
    "Prediction",
    "candidates",
    "keep_large_buffers",
    "make_deterministic",
    "network_size",
    "normalize_exposure",
    "preprocess",
    "release_memory",
]
