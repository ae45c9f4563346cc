# SPDX-License-Identifier: Apache-2.0
"""A network as other runtimes take it: for one size of input, with the position embedding of that size."""

from __future__ import annotations

import io
import warnings

import torch

from ..models import DepthNetwork

OPSET = 18


def program_of(network: DepthNetwork, height: int, width: int) -> torch.export.ExportedProgram:
    """The network traced for (1, 3, height, width) float32."""
    with torch.no_grad():
        return torch.export.export(network.at_size(height, width), (torch.zeros(1, 3, height, width),), strict=False)


def onnx_of(network: DepthNetwork, height: int, width: int, metadata: dict[str, str] | None = None) -> bytes:
    """An ONNX file: `image` (1, 3, height, width) float32, normalised RGB -> `depth` (1, height, width) float32.

    Args:
        metadata: what the file is to say of itself.
    """
    import onnx

    with warnings.catch_warnings():  # of deprecations within torch's own exporter
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            program_of(network, height, width),
            dynamo=True,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["depth"],
            verbose=False,
        )
    model = program.model_proto
    onnx.helper.set_model_props(model, metadata or {})
    file = io.BytesIO()
    onnx.save_model(model, file)
    return file.getvalue()
