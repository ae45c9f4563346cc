# SPDX-License-Identifier: Apache-2.0
"""What executes a network: torch, or a runtime that has to prove that it says the same."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable

import torch

from ...models import DepthNetwork
from .interface import PRECISIONS, Backend, BackendError


def _later(module: str, kind: str) -> Callable[..., Backend]:
    """Makes a backend; its library is imported only then: none but torch has to be installed."""
    return lambda *args: getattr(importlib.import_module(f".{module}", __name__), kind)(*args)


# name -> (what it needs to be importable, kinds of device, how it is made from network, device, precision)
BACKENDS: dict[str, tuple[tuple[str, ...], tuple[str, ...], Callable[..., Backend]]] = {
    "torch": ((), ("cpu", "cuda", "mps"), _later("torch_backend", "TorchBackend")),
    "openvino": (("openvino",), ("cpu",), _later("openvino_backend", "OpenVinoBackend")),
    "onnxruntime": (
        ("onnxruntime", "onnx", "onnxscript"),
        ("cpu", "cuda"),
        _later("onnxruntime_backend", "OnnxRuntimeBackend"),
    ),
    "tensorrt": (("onnxruntime", "onnx", "onnxscript"), ("cuda",), _later("onnxruntime_backend", "TensorRTBackend")),
}
_USUAL = {"cuda": "fp16", "mps": "fp32", "cpu": "fp32"}  # the precision of torch on each kind of device, if nobody says
Candidate = tuple[str, str]  # backend, precision; an empty precision is the backend's own choice


def candidates(backend: str, precision: str, device: torch.device) -> list[Candidate]:
    """What to try on a device, best first; the last, torch in float32, is what the others are measured against.

    Args:
        backend: "auto" or one of `BACKENDS`. auto: on the CPU OpenVINO where it is installed; else torch.
        precision: "auto" or one of `PRECISIONS`. auto: the fastest that the device has; torch on the CPU: fp32.

    Raises:
        ValueError: an unknown name, or a backend that is not installed or does not run on this device.
    """
    if precision != "auto" and precision not in PRECISIONS:
        raise ValueError(f"unknown precision '{precision}', expected auto, {', '.join(PRECISIONS)}")
    if backend == "auto":
        first = "openvino" if device.type == "cpu" and not missing("openvino") else "torch"
    elif backend not in BACKENDS:
        raise ValueError(f"unknown backend '{backend}', expected auto, {', '.join(BACKENDS)}")
    else:
        first = backend
        if device.type not in BACKENDS[first][1]:
            where = " or ".join(BACKENDS[first][1])
            raise ValueError(f"backend '{first}' runs on {where}, but the device is {device}: set device, or backend to auto")
        if first == "onnxruntime" and precision == "bf16":
            raise ValueError("backend 'onnxruntime' has no bf16: set precision to auto, fp32 or (on CUDA) fp16")
        if missing(first):
            raise ValueError(
                f"backend '{first}' needs {', '.join(missing(first))}, not installed here (docs/speed.md says how; "
                "for a GPU it is onnxruntime-gpu), or set backend to auto"
            )
    asked = "" if precision == "auto" else precision
    torchs = [asked or _USUAL[device.type]]
    if torchs == ["fp16"]:
        torchs.append("bf16")  # a wider range: what overflows in fp16 does not there
    found = [("torch", one) for one in dict.fromkeys((*torchs, "fp32"))]
    return found if first == "torch" else [(first, asked), *found]


def missing(backend: str) -> list[str]:
    """The packages that a backend lacks on this machine."""
    return [name for name in BACKENDS[backend][0] if importlib.util.find_spec(name) is None]


def open_backend(candidate: Candidate, network: DepthNetwork, device: torch.device) -> Backend:
    """A backend for a network in float32 on the CPU.

    Raises:
        BackendError: it cannot run here, or not in this precision.
    """
    name, precision = candidate
    return BACKENDS[name][2](network, device, precision)


__all__ = ["BACKENDS", "PRECISIONS", "Backend", "BackendError", "Candidate", "candidates", "missing", "open_backend"]
