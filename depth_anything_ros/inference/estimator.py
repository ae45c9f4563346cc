# SPDX-License-Identifier: Apache-2.0
"""Images in, predictions out: the network with its preprocessing on one device. Stateless: any image, any order."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ..models import (
    CANONICAL,
    METRIC,
    RELATIVE,
    DepthNetwork,
    Examination,
    check_input_size,
    create_model,
    input_unit,
    rows_of,
)
from ..models.zoo import LONG_SIDE
from .backends import candidates
from .executor import Executor
from .prediction import Features, Focal, Prediction
from .preprocessing import ImageError, network_size, preprocess

_POSSIBLE = 5.0, 170.0  # degrees: a field of view that an estimate is believed of
_NEAREST, _FARTHEST = 1e-4, 1e4  # metres, of canonical networks (Depth Pro's `infer`)


class InferenceError(RuntimeError):
    """The device or the network failed on a good image; the message says how."""


@dataclass(frozen=True)
class DepthEstimator:
    """A loaded network, ready to run. Make one with `create`.

        estimator = DepthEstimator.create(model="v2", encoder="vits", checkpoint="file.pth")
        prediction = estimator.predict(rgb)        # rgb (H, W, 3) uint8
        prediction.at_image_size()                 # (H, W) float32; prediction.kind says what of

    Attributes:
        executor: the network, and the backend that executes it.
        model, encoder: names in the zoo.
        input_size: the short side that images are resized to, pixels.
        max_tokens: see `network_size`.
        weights: name of the checkpoint's file, if it is not the published one; of one that describes itself, its identity.
    """

    executor: Executor
    model: str
    encoder: str
    input_size: int
    max_tokens: int = 0
    weights: str = ""

    @classmethod
    def create(
        cls,
        model: str = "v2_metric_indoor",
        encoder: str = "",
        checkpoint: str = "",
        input_size: int = 0,
        device: str = "auto",
        precision: str = "auto",
        allow_noncommercial: bool = False,
        backend: str = "auto",
        max_tokens: int = 0,
        log: Callable[[str], None] = lambda line: None,
    ) -> DepthEstimator:
        """Load a model onto a device.

        Args:
            model, encoder, checkpoint, allow_noncommercial: see `models.create_model`.
            input_size: short side in pixels, a multiple of the patch; 0 = the model's own.
            device: "auto", "cpu", "cuda", "cuda:N" or "mps".
            precision, backend: see `backends.candidates`.
            max_tokens: see `network_size`.
            log: told in a line of each backend that is refused.

        Raises:
            ModelError: the model or its checkpoint cannot be used.
            ValueError: a device, precision, backend or input size that does not exist here.
        """
        row, encoder_row, encoder = rows_of(model, encoder, checkpoint)
        input_size = input_size or row.input_size
        check_input_size(input_size, input_unit(row, encoder_row))
        target = choose_device(device)
        choices = candidates(backend, precision, target)
        network = create_model(model, encoder, checkpoint, allow_noncommercial)
        published = row.weights[encoder].file.rsplit("/", 1)[-1] if encoder in row.weights else ""
        weights = row.identity or ("" if not checkpoint or Path(checkpoint).name == published else Path(checkpoint).name)
        return cls(Executor(network, target, choices, log), model, encoder, input_size, max_tokens, weights)

    @property
    def network(self) -> DepthNetwork:
        """The network in float32, on the CPU."""
        return self.executor.network

    @property
    def device(self) -> torch.device:
        """Where images go, and predictions are."""
        return self.executor.device

    @property
    def name(self) -> str:
        """What a scale belongs to: `Prediction.network` of images that `max_tokens` does not concern."""
        return self._name(self.input_size)

    def with_input_size(self, input_size: int, max_tokens: int | None = None) -> DepthEstimator:
        """The same network at another input size (0 = the model's own); nothing is loaded again."""
        input_size = input_size or self.network.model.input_size
        check_input_size(input_size, self.network.patch)
        return replace(self, input_size=input_size, max_tokens=self.max_tokens if max_tokens is None else max_tokens)

    def network_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of the network's input for an image of this size."""
        resize = self.network.model.resize
        return network_size(width, height, self.input_size, self.network.patch, self.max_tokens, resize)

    def prepare(self, width: int, height: int) -> None:
        """Do now what the first image of this size would have to wait for.

        Raises:
            ImageError: an impossible size.
            InferenceError: the device failed.
        """
        with self._device_errors():
            self.executor.prepare(self.network_size(width, height))

    def begin(self, width: int, height: int) -> bool:
        """Whether an image of this size can be predicted at once; if not, `prepare` is under way in the background.

        Raises:
            ImageError: an impossible size.
        """
        return self.executor.begin(self.network_size(width, height))

    def predict(self, rgb: np.ndarray, focal: Focal | None = None) -> Prediction:
        """The prediction for one image, (H, W, 3) uint8 RGB; `focal`: see `predict_batch`."""
        return self.predict_batch([rgb], [focal])[0]

    def _name(self, input_size: int) -> str:
        """ "model/encoder/input size", and which weights if they are not the published ones: what a scale belongs to."""
        return f"{self.model}/{self.encoder}/{input_size}" + (f"/{self.weights}" if self.weights else "")

    def predict_batch(
        self,
        images: Sequence[np.ndarray],
        focals: Sequence[Focal | None] = (),
        confidence: bool = False,
        features: bool = False,
        spent: Callable[[str, float], None] = lambda stage, seconds: None,
    ) -> list[Prediction]:
        """Predictions for several images, in one pass through the network.

        Args:
            images: (H, W, 3) uint8 RGB each.
            focals: focal lengths (fx, fy) of each image, in its pixels; None, or no list at all: unknown. "canonical" networks
                make metres of them. Without them Depth Pro estimates one, and others say inverse depth of unknown scale.
            confidence: predict the mirrored images, too, and say how well the two agree: the smaller over the larger value of
                each pixel. Twice the work, in the same pass.
            features: give the encoder's features, too. By torch, even where something faster executes the network.
            spent: told the seconds of the stages "preprocess" and "network".

        Raises:
            ImageError: not (H, W, 3) uint8, or not all of one `network_size`.
            InferenceError: the output is not finite, or the device failed.
        """
        size, row = self._size_of(images), self.network.model
        focals = list(focals) or [None] * len(images)
        lacking = [row.says_fov and focal is None for focal in focals]
        if any(lacking) and not all(lacking):  # those that lack nothing are not to be computed in another way for it
            found = {}
            for which in (True, False):
                places = [i for i, lacks in enumerate(lacking) if lacks == which]
                shown = [images[i] for i in places], [focals[i] for i in places]
                found |= dict(zip(places, self.predict_batch(*shown, confidence, features, spent)))
            return [found[i] for i in range(len(images))]
        start = time.perf_counter()
        with self._device_errors(), torch.inference_mode():
            batch = preprocess(images, size, self.device, row)
            if confidence:
                batch = torch.cat([batch, batch.flip(-1)])
            begun = time.perf_counter()
            said = self.executor.examine(batch) if features or any(lacking) else Examination(self.executor.run(batch))
            finite = bool(torch.isfinite(said.values).all())  # waits for the device
        spent("preprocess", begun - start)
        spent("network", time.perf_counter() - begun)
        if not finite:
            how = f"{self.executor.backend.name} {self.executor.backend.precision}"
            raise InferenceError(f"{self.model}/{self.encoder} gave NaN or Inf ({how}); try precision fp32 or bf16")
        agreed = [None] * len(images)
        if confidence:
            values, mirrored = said.values[: len(images)], said.values[len(images) :].flip(-1)
            agreed = (torch.minimum(values, mirrored) + 1e-6) / (torch.maximum(values, mirrored) + 1e-6)
        predictions = [self._prediction(said, i, rgb.shape[:2], focals[i], size) for i, rgb in enumerate(images)]
        return [
            replace(prediction, confidence=agree, features=_features(said, i, size) if features else None)
            for i, (prediction, agree) in enumerate(zip(predictions, agreed))
        ]

    def _size_of(self, images: Sequence[np.ndarray]) -> tuple[int, int]:
        """(width, height) of the network's input for all of these images."""
        for rgb in images:
            if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
                raise ImageError(f"expected (H, W, 3) uint8 RGB, got {rgb.shape} {rgb.dtype}")
        sizes = {self.network_size(rgb.shape[1], rgb.shape[0]) for rgb in images}
        if len(sizes) != 1:
            raise ImageError(f"a batch takes images of one network_size, got {', '.join(map(str, sorted(sizes)))}")
        return sizes.pop()

    def _prediction(
        self, said: Examination, place: int, image: tuple[int, int], focal: Focal | None, size: tuple[int, int]
    ) -> Prediction:
        """What was said of one image of (height, width), in metres if the network makes them and can; `size`: of its input."""
        row, values = self.network.model, said.values[place]
        name = self._name(max(size) if row.resize == LONG_SIDE else min(size))
        if row.kind != CANONICAL:
            return Prediction(values, row.kind, image, row.align_corners, name, row.max_depth)
        estimated = focal is None and said.fov is not None and _POSSIBLE[0] < float(said.fov[place]) < _POSSIBLE[1]
        if estimated:
            focal = (0.5 * image[1] / math.tan(math.radians(float(said.fov[place])) / 2),) * 2
        # A scale that was found for one of these is none for the others.
        name += "/no focal length" if focal is None else "/estimated focal length" if estimated else ""
        kind, values = self._metres(values, image, focal)
        return Prediction(values, kind, image, row.align_corners, name, row.max_depth, focal=focal, estimated=estimated)

    def _metres(self, values: torch.Tensor, image: tuple[int, int], focal: Focal | None) -> tuple[str, torch.Tensor]:
        """Kind and values of a canonical network's output (h, w) for an image of (height, width).

        Depth Pro: 1 / z = values * W / fx (`depth_pro.py`, `infer`). Depth Anything 3: z = output * focal / 300, with the mean
        focal length of the image as the network sees it (README; `utils/alignment.py` with `input_processor.py`).
        """
        if focal is None:
            return RELATIVE, values
        canonical, seen = self.network.model.canonical_focal, [focal[i] * values.shape[1 - i] / image[1 - i] for i in (0, 1)]
        ratio = canonical / (sum(seen) / 2) if canonical else values.shape[1] / seen[0]
        return METRIC, (values * ratio).clamp(1 / _FARTHEST, 1 / _NEAREST).reciprocal()

    @contextmanager
    def _device_errors(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # out of memory, a lost device: torch has no common kind for them
            line = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InferenceError(f"{self.model}/{self.encoder} failed on {self.device}: {line}") from error


def _features(said: Examination, place: int, size: tuple[int, int]) -> Features:
    token = said.class_token
    return Features(said.features[place], None if token is None else token[place], size)


def choose_device(name: str) -> torch.device:
    """The torch device of a name; "auto" is CUDA, else MPS, else the CPU.

    Raises:
        ValueError: not a device, or one that this machine does not have.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"unknown device '{name}', expected auto, cpu, cuda, cuda:N or mps") from error
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if device.type not in available:
        raise ValueError(f"unknown device '{name}', expected auto, cpu, cuda, cuda:N or mps")
    if not available[device.type]:
        raise ValueError(
            f"device '{name}' is not available to torch {torch.__version__} on this machine; use device auto or cpu"
        )
    return device
