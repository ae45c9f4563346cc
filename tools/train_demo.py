#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Train the embedded model on procedural scenes with exact depth: hours on two CPU cores, minutes on a GPU.

    python tools/train_demo.py --output out/train
    python tools/train_demo.py --output out/train --resume      goes on where the last one was stopped

Small images first, where a step is cheap, then the size that the model runs at. Scenes are rendered as the training goes
(seeds count up from 0); each is used about four times, mirrored and photographed anew. Held-out seeds (all above ten
million) and the held-out family are only ever used for the figures that are printed. In `--output`: demo.safetensors
(averaged weights), state.pt (to resume), log.csv, and pictures of held-out scenes.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait must not spin: other work shares the cores

import cv2
import numpy as np
import torch
from safetensors.torch import save_file

from depth_anything_ros.demo import raycast
from depth_anything_ros.demo.families import FAMILIES, HELD_OUT_FAMILY, HELD_OUT_SEED, random_batch
from depth_anything_ros.demo.photograph import photograph
from depth_anything_ros.demo.scenes import VERSION
from depth_anything_ros.demo.sources import photographed_scene
from depth_anything_ros.models.checkpoint import load_checkpoint
from depth_anything_ros.models.network import DepthNetwork
from depth_anything_ros.models.zoo import ENCODERS, IMAGENET_MEAN, IMAGENET_STD, MODELS

REUSE = 4  # times that a rendered scene is drawn
AVERAGING = 0.999
REPORT_EVERY = 500
MEAN, STD = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))


@dataclass(frozen=True)
class Stage:
    """A part of the training: size of the images in pixels, images per step, and the largest learning rate."""

    width: int
    height: int
    batch: int
    rate: float
    steps: int


class ScenePool:
    """A ring of rendered scenes; every draw first replaces a share of the oldest by new ones."""

    def __init__(self, stage: Stage, first_seed: int, max_depth: float, device: torch.device, capacity: int = 4096):
        self.stage, self.next_seed, self.max_depth, self.device = stage, first_seed, max_depth, device
        shape = (capacity, stage.height, stage.width)
        self.rgb = torch.empty(*shape, 3, dtype=torch.uint8, device=device)
        self.depth = torch.empty(shape, device=device)
        self.filled = self.cursor = 0

    def render(self, count: int) -> None:
        """Replace the oldest `count` scenes."""
        scenes, views = random_batch(list(range(self.next_seed, self.next_seed + count)))
        seen = raycast.render(scenes.to(self.device), views.to(self.device), self.stage.width, self.stage.height)
        slots = (self.cursor + torch.arange(count, device=self.device)) % len(self.rgb)
        self.rgb[slots] = (seen.rgb * 255).to(torch.uint8)
        self.depth[slots] = seen.depth.clamp_max(self.max_depth)
        self.next_seed += count
        self.cursor = (self.cursor + count) % len(self.rgb)
        self.filled = min(self.filled + count, len(self.rgb))

    def draw(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (batch, 3, h, w) in [0, 1] and depth (batch, h, w) in metres, photographed and mirrored at random."""
        self.render(self.stage.batch // REUSE)
        chosen = torch.randint(self.filled, (self.stage.batch,), device=self.device)
        images, depth = self.rgb[chosen].permute(0, 3, 1, 2).float() / 255, self.depth[chosen]
        mirrored = torch.rand(len(chosen), device=self.device) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
        return photograph(images), torch.where(mirrored[:, None, None], depth.flip(-1), depth)


def forward(network: DepthNetwork, images: torch.Tensor) -> torch.Tensor:
    """What the network would give, but the head too in half precision: a third faster, and good enough for gradients."""
    size = tuple(images.shape[-2:])
    with torch.autocast(images.device.type, torch.bfloat16):
        values = network.depth_head(network.levels(images), size)[:, 0]
    return torch.sigmoid(values.float()) * network.model.max_depth


def loss_of(predicted: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
    """Error of log depth, the same without each image's mean (scale-invariant), and of its gradients at four scales."""
    error = torch.log(predicted.clamp_min(1e-3)) - torch.log(depth)
    total = error.abs().mean() + 0.5 * (error - error.mean((1, 2), keepdim=True)).abs().mean()
    for step in (1, 2, 4, 8):
        coarse = error[:, ::step, ::step]
        total = total + 0.25 * (coarse.diff(dim=1).abs().mean() + coarse.diff(dim=2).abs().mean())
    return total


class HeldOut:
    """Scenes that are never trained on, rendered and photographed once."""

    def __init__(self, width: int, height: int, max_depth: float, device: torch.device, count: int):
        self.max_depth, self.scenes = max_depth, {}
        for family in (*FAMILIES, HELD_OUT_FAMILY):
            images, depths = [], []
            for seed in range(HELD_OUT_SEED, HELD_OUT_SEED + count):
                shot = photographed_scene(seed, family, width, height)
                images.append(torch.from_numpy(shot.rgb).permute(2, 0, 1) / 255)
                depths.append(torch.from_numpy(shot.depth))
            self.scenes[family] = torch.stack(images).to(device), torch.stack(depths).to(device)

    @torch.inference_mode()
    def figures(self, network: DepthNetwork) -> dict[str, tuple[float, float]]:
        """AbsRel and delta1 per family without any alignment, means over scenes, pixels nearer than the maximum."""
        rows = {}
        for family, (images, depth) in self.scenes.items():
            predicted = torch.cat([network(batch) for batch in normalised(images).split(8)])
            valid = depth < self.max_depth
            ratio = torch.where(valid, predicted / depth, 1.0)
            share = valid.float().mean((1, 2))
            absrel = (ratio - 1).abs().mean((1, 2)) / share
            wrong = (torch.maximum(ratio, 1 / ratio) >= 1.25).float().mean((1, 2)) / share
            rows[family] = float(absrel.mean()), float(1 - wrong.mean())
        return rows

    @torch.inference_mode()
    def picture(self, network: DepthNetwork, path: Path) -> None:
        """Image, truth and prediction of the first two scenes of each family, one below the other."""
        rows = []
        for images, depth in self.scenes.values():
            predicted = network(normalised(images[:2])).clamp(0.3, self.max_depth)
            for image, truth, found in zip(images, depth.clamp(0.3, self.max_depth), predicted):
                shown = [(image.permute(1, 2, 0).cpu().numpy() * 255).astype(np.uint8)[..., ::-1]]
                for value in (truth, found):
                    near = 1 - (value.log() - math.log(0.3)) / math.log(self.max_depth / 0.3)
                    shown.append(cv2.applyColorMap((near * 255).byte().cpu().numpy(), cv2.COLORMAP_TURBO))
                rows.append(np.concatenate(shown, axis=1))
        cv2.imwrite(str(path), np.concatenate(rows))


def normalised(images: torch.Tensor) -> torch.Tensor:
    """As the network takes them."""
    return (images - MEAN.to(images.device)) / STD.to(images.device)


class Training:
    """Network, its running average and where the training stands: all that a resumed one needs."""

    def __init__(self, args: argparse.Namespace):
        model, encoder = MODELS["demo"], ENCODERS["tiny"]
        height, width = encoder.train_size
        self.args, self.device = args, torch.device(args.device)
        self.stages = [
            Stage(width // 2, height // 2, 32, 1e-3, args.steps[0]),
            Stage(width, height, 16, args.rate, args.steps[1]),
        ]
        self.network = DepthNetwork(model, encoder, model.taps["tiny"])
        torch.nn.init.trunc_normal_(self.network.pretrained.pos_embed, std=0.02)
        if args.start:
            load_checkpoint(self.network, args.start, "tiny")
        self.network.to(self.device, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.network).requires_grad_(False).eval()
        self.stage = self.step = 0
        self.next_seed, self.pending = args.first_scene, None  # the optimiser's state from a file

    def save(self, optimiser: torch.optim.Optimizer, next_seed: int) -> None:
        """State to resume from, and the averaged weights in half precision; each replaces the last one in one move."""
        state = {
            "network": self.network.state_dict(), "average": self.average.state_dict(), "stage": self.stage,
            "step": self.step, "next_seed": next_seed, "optimiser": optimiser.state_dict(),
        }  # fmt: skip
        torch.save(state, self.args.output / "state.tmp")
        (self.args.output / "state.tmp").replace(self.args.output / "state.pt")
        half = {k: (v.half() if v.is_floating_point() else v).contiguous().cpu() for k, v in self.average.state_dict().items()}
        save_file(half, self.args.output / "demo.tmp", {"seed": str(self.args.seed), "scenes": f"version {VERSION}"})
        (self.args.output / "demo.tmp").replace(self.args.output / "demo.safetensors")

    def resume(self) -> None:
        """Go on from state.pt; the ring of scenes is filled with new ones."""
        state = torch.load(self.args.output / "state.pt", map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.stage, self.step, self.next_seed = state["stage"], state["step"], state["next_seed"]
        self.pending = state["optimiser"]

    def run(self) -> None:
        """All stages from where the training stands."""
        while self.stage < len(self.stages):
            if self.stages[self.stage].steps > self.step:
                self.run_stage(self.stages[self.stage])
            self.stage, self.step = self.stage + 1, 0

    def run_stage(self, stage: Stage) -> None:
        """One stage from where it stands, with a report every few hundred steps."""
        held_out = HeldOut(stage.width, stage.height, self.network.model.max_depth, self.device, self.args.held_out)
        pool = ScenePool(stage, self.next_seed, self.network.model.max_depth, self.device)
        for _ in range(4 * REUSE):
            pool.render(stage.batch // REUSE)
        optimiser = torch.optim.AdamW(self.network.parameters(), lr=stage.rate, weight_decay=0.02, betas=(0.9, 0.98))
        if self.pending:
            optimiser.load_state_dict(self.pending)
            self.pending = None
        started, running = time.monotonic(), 0.0
        while self.step < stage.steps:
            share = min(1, (self.step + 1) / 200) * (0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * self.step / stage.steps)))
            optimiser.param_groups[0]["lr"] = stage.rate * share
            images, depth = pool.draw()
            loss = loss_of(forward(self.network.train(), normalised(images)), depth)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            self.step += 1
            running += (float(loss.detach()) - running) / min(self.step, 100)
            self.keep_average(1 - min(AVERAGING, (self.step + 1) / (self.step + 10) if self.stage == 0 else AVERAGING))
            if self.step % REPORT_EVERY == 0 or self.step == stage.steps:
                self.report(held_out, running, pool.next_seed, (time.monotonic() - started) / 60)
                self.save(optimiser, pool.next_seed)
        self.next_seed = pool.next_seed

    @torch.no_grad()
    def keep_average(self, weight: float) -> None:
        """Move the average a little towards the network."""
        for kept, now in zip(self.average.state_dict().values(), self.network.state_dict().values()):
            kept.lerp_(now, weight) if kept.is_floating_point() else kept.copy_(now)

    def report(self, held_out: HeldOut, loss: float, scenes: int, minutes: float) -> None:
        """A line on the screen, a row in log.csv, and pictures."""
        figures = held_out.figures(self.average)
        text = "  ".join(f"{family} {absrel:.3f}/{delta1:.2f}" for family, (absrel, delta1) in figures.items())
        print(f"stage {self.stage} step {self.step} loss {loss:.3f}  {text}  ({minutes:.0f} min)", flush=True)
        with (self.args.output / "log.csv").open("a") as log:
            row = [self.stage, self.step, scenes, f"{loss:.4f}", *(f"{v:.4f}" for pair in figures.values() for v in pair)]
            log.write(",".join(map(str, row)) + "\n")
        held_out.picture(self.average, self.args.output / f"held_out_{self.stage}_{self.step:06d}.png")


def main() -> None:
    """Train both stages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for weights, state, log and pictures")
    parser.add_argument("--resume", action="store_true", help="go on from the state in --output")
    parser.add_argument("--start", type=Path, help="weights to go on from, instead of random ones")
    parser.add_argument("--steps", type=int, nargs=2, default=(2000, 5500), help="at half size, at full size")
    parser.add_argument("--rate", type=float, default=6e-4, help="largest learning rate at full size")
    parser.add_argument("--seed", type=int, default=0, help="of the weights, the order and the cameras")
    parser.add_argument("--first-scene", type=int, default=0, help="scene seed to begin at")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--held-out", type=int, default=24, help="scenes per family of the figures")
    compiler = torch.cuda.is_available() or shutil.which("c++") is not None
    parser.add_argument("--fuse", action=argparse.BooleanOptionalAction, default=compiler, help="compile the ray casting")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    if args.fuse:
        raycast.fuse()
    training = Training(args)
    if args.resume:
        training.resume()
    training.run()


if __name__ == "__main__":
    main()
