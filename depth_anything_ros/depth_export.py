# SPDX-License-Identifier: Apache-2.0
"""`depth_export --model … --image 640x480 network.onnx`: a network as an ONNX file for other runtimes. No ROS."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from .command_line import add_network_options, chosen_estimator, image_size
from .inference import PRECISIONS, ImageError
from .inference.export import onnx_of
from .models import CANONICAL, ModelError
from .models.zoo import LONG_SIDE, SHORT_SIDE, SQUARE

_OUTPUTS = {
    "metric": "metres along the optical axis",
    "relative": "inverse depth of unknown scale and shift",
    "canonical": "inverse depth, 1 / metres once multiplied by the canonical focal length over the input's own",
}
_RESIZING = {
    SHORT_SIDE: "bicubic, no antialiasing",
    LONG_SIDE: "by area where it shrinks, else bicubic",
    SQUARE: "bilinear, no antialiasing",
}


def main(args: list[str] | None = None) -> int:
    """Write the file; it says of itself what its numbers mean."""
    parser = argparse.ArgumentParser(
        prog="depth_export",
        description="An ONNX file of a network for images of one size: image (1, 3, h, w) float32, normalised RGB -> "
        "depth (1, h, w) float32. Weights keep their licence.",
    )
    parser.add_argument("output", type=Path, help="the .onnx file to write")
    parser.add_argument(
        "--image", type=image_size, default="640x480", help="size of the images it is for (default: %(default)s)"
    )
    add_network_options(parser, "v2_metric_indoor")
    parser.set_defaults(backend="torch", device="cpu")
    options = parser.parse_args(args)
    if options.precision == "bf16":
        parser.error("ONNX runtimes take hardly any operator in bf16: --precision fp32 or fp16")
    try:
        estimator = chosen_estimator(options)
        width, height = estimator.network_size(*options.image)
        precision = "fp32" if options.precision == "auto" else options.precision
        network = estimator.network if precision == "fp32" else estimator.network.lowered(PRECISIONS[precision])
        row = network.model
        facts = {
            "network": estimator.name,
            "output": _OUTPUTS[row.kind],
            "licence": row.licence(estimator.encoder),
            **({"canonical focal length": f"{row.canonical_focal or width:g} pixels"} if row.kind == CANONICAL else {}),
            "precision": precision,
            "mean": ", ".join(map(str, row.mean)),
            "std": ", ".join(map(str, row.std)),
            "resize": _RESIZING[row.resize],
        }
        options.output.write_bytes(onnx_of(network, height, width, facts))
    except ImportError as error:
        print(f"depth_export: {error.name} is missing: pip install onnx onnxscript", file=sys.stderr)
        return 2
    except (ModelError, ImageError, OSError, ValueError) as error:
        print(f"depth_export: {error}", file=sys.stderr)
        return 2
    except Exception as error:  # of the exporter: an older torch, a network of more than 2 GB
        print(f"depth_export: torch {torch.__version__} could not export it: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    megabytes = options.output.stat().st_size / 1e6
    print(f"{options.output}: {facts['network']}, input 1x3x{height}x{width}, {facts['output']}, {megabytes:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
