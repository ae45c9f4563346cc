# SPDX-License-Identifier: Apache-2.0
"""What others do with the same image and an equal network: they are timed in the same run, turn by turn."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable

import cv2
import numpy as np
import torch

from ..inference import DepthEstimator
from ..models.zoo import ENCODERS, IMAGENET_MEAN, IMAGENET_STD

Peer = Callable[[np.ndarray], object]  # takes (H, W, 3) uint8 RGB


def torch_eager(estimator: DepthEstimator) -> Peer:
    """The same network in torch, float32, kernel by kernel, with the preprocessing and enlarging of the published code."""
    network = copy.deepcopy(estimator.network).to(estimator.device)

    def run(rgb: np.ndarray) -> np.ndarray:
        size = estimator.network_size(rgb.shape[1], rgb.shape[0])
        pixels = cv2.resize(rgb / 255.0, size, interpolation=cv2.INTER_CUBIC)
        pixels = ((pixels - network.model.mean) / network.model.std).transpose(2, 0, 1).astype(np.float32)
        with torch.inference_mode(), _plain(estimator.device):
            values = network(torch.from_numpy(np.ascontiguousarray(pixels))[None].to(estimator.device))
            return (
                torch.nn.functional.interpolate(values[None], rgb.shape[:2], mode="bilinear", align_corners=True).cpu().numpy()
            )

    return run


def transformers_pipeline(estimator: DepthEstimator, width: int, height: int) -> Peer | None:
    """transformers' `depth-estimation` pipeline around a network of the same size; half precision on CUDA. None: not installed.

    Its processor is told the size that our network sees: by itself it would choose a smaller one for most images.
    """
    try:
        from PIL import Image
        from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessor, pipeline
    except ImportError:
        return None
    row, size = ENCODERS[estimator.encoder], estimator.network_size(width, height)
    if row.stem or row.swiglu:
        return None
    backbone = Dinov2Config(
        hidden_size=row.width,
        num_hidden_layers=row.depth,
        num_attention_heads=row.heads,
        image_size=518,
        patch_size=row.patch,
        out_indices=[tap + 1 for tap in estimator.network.taps],
        apply_layernorm=True,
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=row.width,
        patch_size=row.patch,
        neck_hidden_sizes=list(row.out_channels),
        fusion_hidden_size=row.features,
    )
    model = DepthAnythingForDepthEstimation(config).eval()
    if estimator.device.type == "cuda":
        model = model.half()
    processor = DPTImageProcessor(
        size={"height": size[1], "width": size[0]},
        keep_aspect_ratio=False,
        resample=3,  # bicubic
        image_mean=list(IMAGENET_MEAN),
        image_std=list(IMAGENET_STD),
    )
    run = pipeline("depth-estimation", model=model, image_processor=processor, device=estimator.device)
    return lambda rgb: run(Image.fromarray(rgb))


@contextlib.contextmanager
def _plain(device: torch.device):
    """float32 as it says: without TF32."""
    if device.type != "cuda":
        yield
        return
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield
