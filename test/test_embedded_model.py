# SPDX-License-Identifier: Apache-2.0
"""The embedded model measures scenes that it never saw, through the whole node, and can be trained again."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from ros import DepthProcess, bench, depth_of

import depth_anything_ros.demo
from depth_anything_ros.demo.families import FAMILIES, HELD_OUT_FAMILY, HELD_OUT_SEED, random_batch
from depth_anything_ros.demo.raycast import render
from depth_anything_ros.demo.sources import photographed_scene
from depth_anything_ros.models import create_model

WEIGHTS = Path(depth_anything_ros.demo.__file__).parent / "demo.safetensors"
TRAIN = Path(__file__).resolve().parent.parent / "tools" / "train_demo.py"
SCENES = 6  # of each family
MAX_DEPTH = 20.0


def absrel(depth, truth):
    near = truth < MAX_DEPTH
    return float((np.abs(depth - truth) / np.where(near, truth, 1))[near].mean())


def delta1(depth, truth):
    near = truth < MAX_DEPTH
    return float((np.maximum(depth / truth, truth / depth) < 1.25)[near].mean())


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """{family: [(depth from the node, truth)]} of held-out seeds at 640 x 480, over DDS."""
    pairs = {}
    parameters = {"model": "demo", "device": "cpu", "edges__tolerance": 0.0}  # every pixel counts
    with DepthProcess(tmp_path_factory.mktemp("node"), **parameters), bench(listen=("depth/image",)) as it:
        it.wait_reading()
        for family in (*FAMILIES, HELD_OUT_FAMILY):
            pairs[family] = []
            for seed in range(HELD_OUT_SEED + 300, HELD_OUT_SEED + 300 + SCENES):
                shot = photographed_scene(seed, family, 640, 480)
                depth = depth_of(it.expect("depth/image", it.send(shot.rgb), 30))
                assert depth.shape == shot.depth.shape
                pairs[family].append((np.where(np.isfinite(depth), depth, MAX_DEPTH), shot.depth))  # out of range is far
    return pairs


@pytest.fixture(scope="module")
def constant_map():
    """The depth of each pixel that minimises the sum of |c / t - 1| over 300 training scenes: a weighted median."""
    depths = np.sort(render(*random_batch(list(range(300))), 32, 24, shadows=False).depth.numpy(), axis=0)
    weights = np.where(depths < MAX_DEPTH, 1 / depths, 0).cumsum(0)
    best = np.take_along_axis(depths, (weights >= weights[-1] / 2).argmax(0)[None], 0)[0]
    return cv2.resize(best, (640, 480))


def mean(measure, pairs):
    return np.mean([measure(depth, truth) for depth, truth in pairs])


def test_metres_of_scenes_that_it_never_saw(measured, constant_map):
    trained = [pair for family in FAMILIES for pair in measured[family]]
    assert mean(absrel, trained) <= 0.15
    assert mean(delta1, trained) >= 0.80
    assert mean(absrel, measured[HELD_OUT_FAMILY]) <= 2 * mean(absrel, trained)
    assert 3 * mean(absrel, trained) <= mean(absrel, [(constant_map, truth) for _, truth in trained])


def test_the_figures_would_notice_another_scene(measured):
    """The negative control: each depth against the truth of the next scene."""
    for family in FAMILIES:
        depths, truths = zip(*measured[family])
        assert mean(absrel, list(zip(depths, (*truths[1:], truths[0])))) > 0.3


def test_it_is_small():
    assert WEIGHTS.stat().st_size <= 12e6


def test_training_is_one_command_and_goes_on_where_it_was_stopped(tmp_path):
    def train(*options):
        line = [sys.executable, TRAIN, "--output", tmp_path, "--device", "cpu", "--held-out", "1", "--no-fuse", *options]
        return subprocess.run([str(part) for part in line], capture_output=True, text=True, timeout=300, check=True).stdout

    first = train("--steps", "1", "0", "--seed", "5")
    assert "stage 0 step 1 " in first and "warehouse" in first
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert (state["stage"], state["step"]) == (0, 1)
    second = train("--steps", "2", "0", "--resume")
    assert "stage 0 step 2 " in second and "step 1 " not in second
    again = torch.load(tmp_path / "state.pt", weights_only=True)
    assert again["step"] == 2 and again["next_seed"] > state["next_seed"]
    assert any(not torch.equal(again["network"][name], tensor) for name, tensor in state["network"].items())
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 2
    assert cv2.imread(str(tmp_path / "held_out_0_000002.png")) is not None
    network = create_model("demo", checkpoint=str(tmp_path / "demo.safetensors"))
    kept = again["average"]["depth_head.scratch.output_conv1.weight"].half().float()
    assert torch.equal(network.depth_head.scratch.output_conv1.weight.detach(), kept)
