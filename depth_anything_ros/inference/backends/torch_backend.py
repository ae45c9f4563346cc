# SPDX-License-Identifier: Apache-2.0
"""torch itself: eager on the CPU and MPS, a CUDA graph for each shape on CUDA."""

from __future__ import annotations

import torch

from ...models import DepthNetwork
from .interface import PRECISIONS

_WARM_UPS = 3  # passes before a capture: cuDNN chooses its algorithms, cuBLAS takes its workspace
_MAX_GRAPHS = 8  # each keeps its activations; further shapes run without


class TorchBackend:
    """The network's own code; in half precision its tail stays in float32 (`DepthNetwork.lowered`)."""

    name = "torch"

    def __init__(self, network: DepthNetwork, device: torch.device, precision: str):
        self.device, self.precision = device, precision
        plain = device.type == "cpu" and precision == "fp32"
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
        if not plain:
            network = network.lowered(PRECISIONS[precision]).to(device, memory_format=torch.channels_last)
        self._network = network
        self._sizes: dict[tuple[int, int], DepthNetwork] = {}
        self._graphs: dict[tuple[int, ...], _Graph] = {}

    def prepare(self, height: int, width: int) -> None:
        """Compute what belongs to this size; see `Backend`."""
        self._sizes.setdefault((height, width), self._network.at_size(height, width))
        self.run(torch.zeros((1, 3, height, width), device=self.device))

    def forget(self, height: int, width: int) -> None:
        """See `Backend`."""
        del self._sizes[height, width]
        self._graphs = {shape: graph for shape, graph in self._graphs.items() if shape[-2:] != (height, width)}

    def run(self, images: torch.Tensor) -> torch.Tensor:
        """See `Backend`."""
        network, shape = self._sizes[tuple(images.shape[-2:])], tuple(images.shape)
        with torch.inference_mode():
            if self.device.type != "cuda":
                return network(images)
            with torch.cuda.device(self.device):
                if shape not in self._graphs and len(self._graphs) >= _MAX_GRAPHS:
                    return network(images)
                if shape not in self._graphs:
                    self._graphs[shape] = _Graph(network, images)
                return self._graphs[shape].run(images)


class _Graph:
    """One pass through a network for one shape, recorded and played back: nothing is launched kernel by kernel."""

    def __init__(self, network: DepthNetwork, images: torch.Tensor):
        self._images = images.clone()
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UPS):
                network(self._images)
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):  # another network may be at work meanwhile
            self._values = network(self._images)

    def run(self, images: torch.Tensor) -> torch.Tensor:
        self._images.copy_(images)
        self._graph.replay()
        return self._values.clone()
