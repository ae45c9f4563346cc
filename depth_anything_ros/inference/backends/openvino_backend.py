# SPDX-License-Identifier: Apache-2.0
"""OpenVINO on the CPU: one compiled model for each size of input."""

from __future__ import annotations

import openvino
import torch

from ...models import DepthNetwork
from ..export import program_of
from .interface import BackendError

_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_CAPABILITIES = {"fp32": "FP32", "bf16": "BF16", "fp16": "FP16"}


class OpenVinoBackend:
    """Takes the precision from the processor: bf16 where it has instructions for it, else fp32."""

    name = "openvino"
    max_sizes = 4  # each with its own copy of the weights

    def __init__(self, network: DepthNetwork, device: torch.device, precision: str):
        self.device, self._network, self._core = device, network, openvino.Core()
        able = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self.precision = precision or ("bf16" if "BF16" in able else "fp32")
        if _CAPABILITIES[self.precision] not in able:
            raise BackendError(f"this processor computes in {', '.join(able)}, not in {self.precision}")
        self._requests: dict[tuple[int, int], openvino.InferRequest] = {}

    def prepare(self, height: int, width: int) -> None:
        """Compile for this size: a few seconds; see `Backend`."""
        if (height, width) in self._requests:
            return
        options = {
            "INFERENCE_PRECISION_HINT": _HINTS[self.precision],
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "ENABLE_CPU_PINNING": False,  # the robot's other processes are on these cores, too
        }
        model = openvino.convert_model(program_of(self._network, height, width))
        self._requests[height, width] = self._core.compile_model(model, "CPU", options).create_infer_request()

    def forget(self, height: int, width: int) -> None:
        """See `Backend`."""
        del self._requests[height, width]

    def run(self, images: torch.Tensor) -> torch.Tensor:
        """See `Backend`. One image after another: on a CPU a batch is no faster."""
        request = self._requests[tuple(images.shape[-2:])]
        values = torch.empty((len(images), *images.shape[-2:]))
        for image, value in zip(images.contiguous().numpy(), values):
            request.set_input_tensor(openvino.Tensor(image[None], shared_memory=True))
            request.infer()
            value.copy_(torch.from_numpy(request.get_output_tensor().data[0]))
        return values
