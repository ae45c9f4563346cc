# SPDX-License-Identifier: Apache-2.0
"""The options by which every command chooses its network."""

from __future__ import annotations

import argparse
import re

from .inference import BACKENDS, PRECISIONS, DepthEstimator
from .models import MODEL_NAMES


def add_network_options(parser: argparse.ArgumentParser, model: str) -> None:
    """Give a command --model and all that goes with it; `model` is the default."""
    parser.add_argument("--model", default=model, choices=MODEL_NAMES, help="network (default: %(default)s)")
    parser.add_argument("--encoder", default="", help="vits, vitb, vitl, ... (default: the model's smallest)")
    parser.add_argument("--checkpoint", default="", help="file with weights (default: the published one, downloaded once)")
    parser.add_argument("--input-size", type=int, default=0, help="pixels; short side for most models (default: the model's)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N, mps")
    parser.add_argument("--backend", default="auto", choices=("auto", *BACKENDS))
    parser.add_argument("--precision", default="auto", choices=("auto", *PRECISIONS))
    parser.add_argument("--allow-noncommercial", action="store_true", help="accept weights that forbid commercial use")


def image_size(text: str) -> tuple[int, int]:
    """(width, height) of "640x480": the type of an argument."""
    size = re.fullmatch(r"(\d+)x(\d+)", text)
    if not size:
        raise argparse.ArgumentTypeError(f"{text} is not WIDTHxHEIGHT")
    return int(size[1]), int(size[2])


def chosen_estimator(options: argparse.Namespace) -> DepthEstimator:
    """The estimator that the options of `add_network_options` ask for.

    Raises:
        ModelError, ValueError: see `DepthEstimator.create`.
    """
    return DepthEstimator.create(
        options.model,
        options.encoder,
        options.checkpoint,
        options.input_size,
        options.device,
        options.precision,
        options.allow_noncommercial,
        options.backend,
        log=print,
    )
