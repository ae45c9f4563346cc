# SPDX-License-Identifier: Apache-2.0
"""How much a network computes, and how fast this machine computes at best."""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from ..inference import PRECISIONS
from ..models.zoo import ENCODERS


def operations(encoder: str, width: int, height: int) -> float:
    """Multiplications and additions of one pass over an input of width x height, in the published order of layers.

    Matrix products, convolutions and attention; what grows with the pixels only (activations, norms, enlarging) is left out.
    0 for an encoder with a convolutional stem, which is not counted.
    """
    row = ENCODERS[encoder]
    if row.stem:
        return 0.0
    h, w, c, f = height // row.patch, width // row.patch, row.width, row.features
    tokens = h * w + 1
    hidden = 3 * 4096 / c if row.swiglu else 8.0  # weights of the MLP, as multiples of c * c
    encoder_macs = 3 * row.patch**2 * c * h * w + row.depth * tokens * ((4 + hidden) * c * c + 2 * tokens * c)
    p, coarsest = row.out_channels, ((h + 1) // 2) * ((w + 1) // 2)
    head = h * w * c * sum(p)  # to each level's channels
    head += h * w * (16 * p[0] ** 2 + 4 * p[1] ** 2) + coarsest * 9 * p[3] ** 2  # to each level's size
    places = (16 * h * w, 4 * h * w, h * w, coarsest)  # pixels of the four levels
    head += sum(9 * channels * f * count for channels, count in zip(p, places))
    head += sum(18 * f * f * count * (2 if level < 3 else 1) for level, count in enumerate(places))  # residual units
    head += f * f * (places[2] + places[1] + places[0] + 4 * places[0])  # 1 x 1, after enlarging
    head += 9 * f * (f // 2) * 4 * places[0] + height * width * (9 * (f // 2) * 32 + 32)
    return 2.0 * (encoder_macs + head)


def ceiling(device: torch.device, precision: str) -> float:
    """The most operations per second of a square matrix product on this device, by torch or OpenVINO, whichever is faster.

    NaN where nothing has a product of this precision that is worth the name (fp16 on CPUs).
    """
    if device.type == "cpu" and precision == "fp16":
        return float("nan")
    makers = [_torch_product]
    if device.type == "cpu" and importlib.util.find_spec("openvino"):
        makers.append(_openvino_product)
    count, sides = (5, (1024, 2048)) if device.type == "cpu" else (20, (4096, 8192))
    return max(
        2 * side**3 / statistics.median(times(make(device, precision, side), count, device, warm_up=2))
        for make in makers
        for side in sides
    )


def _torch_product(device: torch.device, precision: str, side: int) -> Callable[[], object]:
    a, b = (torch.randn(side, side, device=device).to(PRECISIONS[precision]) for _ in range(2))
    return lambda: a @ b


def _openvino_product(device: torch.device, precision: str, side: int) -> Callable[[], object]:
    import openvino
    import openvino.opset13 as ops

    left = ops.parameter([side, side], np.float32)
    right = ops.constant(np.random.default_rng(0).standard_normal((side, side)).astype(np.float32))
    model = openvino.Model([ops.matmul(left, right, False, True)], [left])
    options = {
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()
    request.set_input_tensor(openvino.Tensor(np.random.default_rng(1).standard_normal((side, side)).astype(np.float32)))
    return request.infer


def times(work: Callable[[], object], count: int, device: torch.device, warm_up: int = 0) -> list[float]:
    """Seconds of each of `count` runs, the device's work included."""
    found = []
    for _ in range(warm_up + count):
        start = time.perf_counter()
        with torch.inference_mode():
            work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - start)
    return found[warm_up:]


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """The median and the 99th percentile in milliseconds."""
    p50, p99 = np.percentile(seconds, (50, 99)) * 1000
    return {"p50": float(p50), "p99": float(p99)}
