#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Train the embedded model on procedural scenes with exact depth, on a CPU in about an hour.

    python tools/train_demo.py --output depth_anything_ros/demo/demo.safetensors

Two stages: small images first, where a step is cheap, then the size that the model runs at. Scenes are rendered as the
training goes (seeds count up from 0) and each is used about four times, mirrored and recoloured. Held-out seeds, which
are all above ten million, are only ever used for the figures that are printed.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file

from depth_anything_ros.demo.raycast import render
from depth_anything_ros.demo.scenes import HELD_OUT_SEED, random_batch
from depth_anything_ros.models.checkpoint import load_checkpoint
from depth_anything_ros.models.network import DepthNetwork
from depth_anything_ros.models.zoo import ENCODERS, IMAGENET_MEAN, IMAGENET_STD, MODELS

MEAN, STD = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))


class ScenePool:
    """A ring of rendered scenes; every draw first replaces a share of the oldest by new ones."""

    def __init__(self, width: int, height: int, capacity: int, first_seed: int, max_depth: float):
        self.size, self.next_seed, self.max_depth = (width, height), first_seed, max_depth
        self.rgb = torch.empty(capacity, height, width, 3, dtype=torch.uint8)
        self.depth = torch.empty(capacity, height, width)
        self.filled = self.cursor = 0

    def draw(self, count: int, fresh: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (count, 3, h, w) in [0, 1] and depth (count, h, w) in metres, recoloured and mirrored at random."""
        scenes, views = random_batch(list(range(self.next_seed, self.next_seed + fresh)))
        self.next_seed += fresh
        rgb, depth = render(scenes, views, *self.size)
        slots = (self.cursor + torch.arange(fresh)) % len(self.rgb)
        self.rgb[slots] = (rgb * 255).to(torch.uint8)
        self.depth[slots] = depth.clamp_max(self.max_depth)
        self.cursor = (self.cursor + fresh) % len(self.rgb)
        self.filled = min(self.filled + fresh, len(self.rgb))
        chosen = torch.randint(self.filled, (count,))
        images, depth = self.rgb[chosen].permute(0, 3, 1, 2).float() / 255, self.depth[chosen]
        mirrored = torch.rand(count) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
        return recolour(images), torch.where(mirrored[:, None, None], depth.flip(-1), depth)


def recolour(images: torch.Tensor) -> torch.Tensor:
    """Exposure, gamma, colour cast, loss of colour and sensor noise, each different for every image."""
    count = len(images)

    def uniform(low, high, channels=1):
        return torch.empty(count, channels, 1, 1).uniform_(low, high)

    images = images.clamp_min(1e-4) ** uniform(0.7, 1.4) * uniform(0.7, 1.3) * uniform(0.85, 1.15, 3)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * uniform(0.0, 1.2)
    return (images + torch.randn_like(images) * uniform(0.0, 0.04)).clamp(0, 1)


def loss_of(predicted: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
    """Absolute error of log depth, plus that of its gradients at four scales (sharp edges, flat walls)."""
    error = torch.log(predicted.clamp_min(1e-3)) - torch.log(depth)
    total = error.abs().mean()
    for step in (1, 2, 4, 8):
        coarse = error[:, ::step, ::step]
        total = total + 0.25 * (coarse.diff(dim=1).abs().mean() + coarse.diff(dim=2).abs().mean())
    return total


def warm_up_then_cosine(step: int, steps: int) -> float:
    """The share of the full learning rate at a step."""
    return min(1, (step + 1) / 100) * (0.05 + 0.95 * (0.5 + 0.5 * math.cos(math.pi * step / steps)))


@torch.inference_mode()
def held_out_figures(network: DepthNetwork, width: int, height: int, count: int = 48) -> tuple[float, float]:
    """AbsRel and delta1 on held-out seeds, without any alignment, over pixels nearer than the model's maximum."""
    absrel, delta1, pixels = 0.0, 0.0, 0
    for start in range(HELD_OUT_SEED, HELD_OUT_SEED + count, 8):
        rgb, depth = render(*random_batch(list(range(start, start + 8))), width, height)
        predicted = network.eval()((rgb.permute(0, 3, 1, 2) - MEAN) / STD)
        valid = depth < network.max_depth
        ratio = predicted[valid] / depth[valid]
        absrel += float((ratio - 1).abs().sum())
        delta1 += float((torch.maximum(ratio, 1 / ratio) < 1.25).sum())
        pixels += int(valid.sum())
    return absrel / pixels, delta1 / pixels


def main() -> None:
    """Train both stages and write the averaged weights in half precision."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, nargs=2, default=(2000, 1000), help="small stage, full stage")
    parser.add_argument("--start", type=Path, help="weights to go on from, instead of random ones")
    parser.add_argument("--seed", type=int, default=0, help="of the weights, the order and the recolouring")
    parser.add_argument("--first-scene", type=int, default=0, help="scene seed to begin at")
    args = parser.parse_args()
    torch.manual_seed(args.seed)

    model, encoder = MODELS["demo"], ENCODERS["tiny"]
    height, width = encoder.train_size
    network = DepthNetwork(model, encoder, model.taps["tiny"])
    torch.nn.init.trunc_normal_(network.pretrained.pos_embed, std=0.02)
    if args.start:
        load_checkpoint(network, args.start, "tiny")
    average = copy.deepcopy(network).requires_grad_(False)
    stages = [(width // 2, height // 2, 32, 8e-4), (width, height, 16, 4e-4)]
    for stage, (w, h, batch, rate) in enumerate(stages):
        steps, started = args.steps[stage], time.monotonic()
        if not steps:
            continue
        first_seed = args.first_scene + 1_000_000 * stage
        pool = ScenePool(w, h, 4096 if stage == 0 else 2048, first_seed, model.max_depth)
        pool.draw(batch, 64)
        optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.02, betas=(0.9, 0.98))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, partial(warm_up_then_cosine, steps=steps))
        for step in range(steps):
            network.train()
            images, depth = pool.draw(batch, batch // 4)
            with torch.autocast("cpu", torch.bfloat16, enabled=stage == 1):
                predicted = network((images - MEAN) / STD)
            loss = loss_of(predicted.float(), depth)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            decay = min(0.998, (step + 1) / (step + 10)) if stage == 0 else 0.998
            with torch.no_grad():
                for kept, now in zip(average.state_dict().values(), network.state_dict().values()):
                    kept.lerp_(now, 1 - decay) if kept.is_floating_point() else kept.copy_(now)
            if (step + 1) % 200 == 0 or step + 1 == steps:
                absrel, delta1 = held_out_figures(average, w, h)
                minutes = (time.monotonic() - started) / 60
                print(
                    f"stage {stage} step {step + 1}/{steps} loss {loss:.3f} held-out AbsRel {absrel:.3f} delta1 {delta1:.3f} "
                    f"({minutes:.1f} min)",
                    flush=True,
                )
                tensors = {name: t.half() if t.is_floating_point() else t for name, t in average.state_dict().items()}
                save_file({name: t.contiguous() for name, t in tensors.items()}, args.output, {"seed": str(args.seed)})


if __name__ == "__main__":
    main()
