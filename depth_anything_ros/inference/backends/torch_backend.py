# SPDX-License-Identifier: Apache-2.0
"""torch itself: eager on the CPU and MPS, on CUDA a graph for each size."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from ...models import DepthNetwork, Examination
from ..memory import CAPTURES
from .interface import PRECISIONS

_WARM_UPS = 3  # passes before a capture: cuDNN chooses its algorithms, cuBLAS takes its workspace


class TorchBackend:
    """The network's own code; in half precision its tail stays in float32 (`DepthNetwork.lowered`)."""

    name = "torch"
    max_sizes = 8

    def __init__(self, network: DepthNetwork, device: torch.device, precision: str):
        self.device, self.precision = device, precision
        plain = device.type == "cpu" and precision == "fp32"
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
            torch.backends.cudnn.allow_tf32 = False  # float32 is float32
        if not plain:
            network = network.lowered(PRECISIONS[precision]).to(device, memory_format=torch.channels_last)
        self._network = network
        self._sizes: dict[tuple[int, int], DepthNetwork] = {}
        self._graphs: dict[tuple[int, ...], _Graph] = {}

    def prepare(self, height: int, width: int) -> None:
        """Compute what belongs to this size; see `Backend`."""
        images = torch.zeros((1, 3, height, width), device=self.device)
        if self.device.type == "cuda":
            with torch.inference_mode(), torch.cuda.device(self.device):
                self._graphs[tuple(images.shape)] = _Graph(self._sized(height, width), images)
        self.run(images)

    def forget(self, height: int, width: int) -> None:
        """See `Backend`."""
        self._sizes.pop((height, width), None)
        self._graphs = {shape: graph for shape, graph in self._graphs.items() if shape[-2:] != (height, width)}

    def run(self, images: torch.Tensor) -> torch.Tensor:
        """See `Backend`."""
        with self._at_work():
            graph = self._graphs.get(tuple(images.shape))  # batches come without: they are large enough
            return graph.run(images) if graph else self._sized(*images.shape[-2:])(images)

    def examine(self, images: torch.Tensor) -> Examination:
        """As `run`, but all that the network can say."""
        with self._at_work():
            return self._sized(*images.shape[-2:]).examine(images)

    def _sized(self, height: int, width: int) -> DepthNetwork:
        if (height, width) not in self._sizes:
            if len(self._sizes) > self.max_sizes:  # of an examiner: nobody tells it what to forget
                del self._sizes[next(iter(self._sizes))]
            self._sizes[height, width] = self._network.at_size(height, width)
        return self._sizes[height, width]

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        on_device = torch.cuda.device(self.device) if self.device.type == "cuda" else contextlib.nullcontext()
        with torch.inference_mode(), on_device:
            yield


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
        # Another network may be at work meanwhile, on the default stream; torch's own stream for captures may be another GPU's.
        with CAPTURES, torch.cuda.graph(self._graph, stream=aside, capture_error_mode="thread_local"):
            self._values = network(self._images)

    def run(self, images: torch.Tensor) -> torch.Tensor:
        self._images.copy_(images)
        self._graph.replay()
        return self._values.clone()
