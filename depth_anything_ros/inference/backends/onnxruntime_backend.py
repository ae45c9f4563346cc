# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime on the CPU and on CUDA, and TensorRT through its provider: one session for each size of input."""

from __future__ import annotations

import contextlib
import hashlib
import os
from importlib import metadata
from pathlib import Path

import onnxruntime
import torch

from ...models import DepthNetwork
from ..export import onnx_of
from .interface import PRECISIONS, BackendError

_CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "depth_anything_ros" / "tensorrt"


class OnnxRuntimeBackend:
    """Runs the network that `depth_export` writes; on CUDA in half precision with a float32 tail, unless told otherwise."""

    name = "onnxruntime"
    max_sizes = 4  # each with its own copy of the weights

    def __init__(self, network: DepthNetwork, device: torch.device, precision: str):
        self.device, self.precision = device, precision or ("fp16" if device.type == "cuda" else "fp32")
        if device.type == "cpu" and self.precision != "fp32":
            raise BackendError(f"ONNX Runtime computes in fp32 on a CPU, not in {self.precision}")
        wanted = self._providers("")[0][0]
        if wanted not in onnxruntime.get_available_providers():
            found = ", ".join(onnxruntime.get_available_providers())
            raise BackendError(f"this onnxruntime has {found}, not {wanted}; pip install onnxruntime-gpu")
        lower = self.precision == "fp16"  # of ONNX Runtime's kernels few take bf16: TensorRT lowers what it is given
        self._network = network.lowered(PRECISIONS["fp16"]) if lower else network
        self._sessions: dict[tuple[int, int], onnxruntime.InferenceSession] = {}

    def _providers(self, key: str) -> list[tuple[str, dict]]:
        """ONNX Runtime's providers, best first; `key` names the exported file."""
        if self.device.type == "cuda":
            return [("CUDAExecutionProvider", {"device_id": self.device.index or 0})]
        return [("CPUExecutionProvider", {})]

    def prepare(self, height: int, width: int) -> None:
        """Export and load: seconds; with TensorRT, which builds an engine, minutes at the first time. See `Backend`."""
        if (height, width) in self._sessions:
            return
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # threads that wait leave the core to others
        file = onnx_of(self._network, height, width)
        providers = self._providers(f"{hashlib.sha256(file).hexdigest()[:16]}-{width}x{height}-{self.precision}")
        session = onnxruntime.InferenceSession(file, options, providers)
        if session.get_providers()[0] != providers[0][0]:
            raise BackendError(f"ONNX Runtime fell back to {session.get_providers()[0]}: {providers[0][0]} does not start here")
        self._sessions[height, width] = session

    def forget(self, height: int, width: int) -> None:
        """See `Backend`."""
        del self._sessions[height, width]

    def run(self, images: torch.Tensor) -> torch.Tensor:
        """See `Backend`. Both buffers stay where they are, on the device."""
        session, images = self._sessions[tuple(images.shape[-2:])], images.contiguous()
        values = [torch.empty(images.shape[-2:], device=self.device) for _ in images]
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()  # ONNX Runtime works on a stream of its own
        for image, value in zip(images, values):
            if len(images) > 1:
                image = image.clone()  # aligned as TensorRT wants it
            binding, where = session.io_binding(), (self.device.type, self.device.index or 0, "float32")
            binding.bind_input("image", *where, [1, *image.shape], image.data_ptr())
            binding.bind_output("depth", *where, [1, *value.shape], value.data_ptr())
            session.run_with_iobinding(binding)  # comes back when it is done
        return torch.stack(values)


class TensorRTBackend(OnnxRuntimeBackend):
    """Engines are kept in the user's cache, by GPU, versions, weights, size and precision."""

    name = "tensorrt"

    def _providers(self, key: str) -> list[tuple[str, dict]]:
        gpu = torch.cuda.get_device_properties(self.device)
        versions = (f"cuda{torch.version.cuda}", f"ort{onnxruntime.__version__}", _tensorrt())
        folder = _CACHE / "-".join((gpu.name, f"{gpu.major}.{gpu.minor}", *versions)).replace(" ", "_")
        options = {
            "device_id": self.device.index or 0,
            "trt_fp16_enable": self.precision == "fp16",
            "trt_engine_cache_enable": True,
            "trt_engine_cache_path": str(folder),
            "trt_engine_cache_prefix": key,
            "trt_timing_cache_enable": True,
            "trt_timing_cache_path": str(folder),
        }
        if self.precision == "bf16":
            options["trt_bf16_enable"] = True  # not known to older ones
        folder.mkdir(parents=True, exist_ok=True)
        return [("TensorrtExecutionProvider", options), *super()._providers(key)]

    def prepare(self, height: int, width: int) -> None:
        """See `OnnxRuntimeBackend.prepare`."""
        super().prepare(height, width)
        self.run(torch.zeros((1, 3, height, width), device=self.device))  # the engine is built now, not at the first frame


def _tensorrt() -> str:
    """Which TensorRT is here, for the name of what it builds: engines of another one cannot be loaded."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return f"tensorrt{metadata.version('tensorrt')}"
    found = sorted(Path("/usr/lib").glob("*/libnvinfer.so.*.*"))
    return found[-1].name if found else "tensorrt"
