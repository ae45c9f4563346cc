# SPDX-License-Identifier: Apache-2.0
"""Frames per second of depth_bag, beside those of the same network without a bag: turn by turn, in one process.

    python benchmarks/replay.py --frames 40 --rounds 3

A bag of 640 x 480 images, raw and as JPEG, random weights. --topics says what is written.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np

from depth_anything_ros.command_line import add_network_options, image_size
from depth_anything_ros.demo.sources import render_scenes
from depth_anything_ros.depth_benchmark import random_weights
from depth_anything_ros.models import rows_of
from depth_anything_ros.replay.bag_input import BagInput
from depth_anything_ros.replay.convert import Conversion
from depth_anything_ros.replay.plan import Request, make_plan
from depth_anything_ros.replay.predictors import Here, Recipe

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "test"))
from bags import START, header_of, image_of, write_bag
from ros import camera_info
from sensor_msgs.msg import CompressedImage


def main() -> None:
    """Print both, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_network_options(parser, "v2_metric_indoor")
    parser.add_argument("--image", type=image_size, default=(640, 480))
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--topics", default="depth/image,depth/camera_info")
    parser.add_argument("--batch", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _measure(options, Path(folder))


def _measure(options: argparse.Namespace, folder: Path) -> None:
    encoder = rows_of(options.model, options.encoder, options.checkpoint)[2]
    checkpoint = options.checkpoint or ("" if options.model == "demo" else str(random_weights(options.model, encoder, folder)))
    values = {"model": options.model, "encoder": encoder, "checkpoint": checkpoint, "allow_noncommercial": True}
    values |= {name: getattr(options, name) for name in ("input_size", "device", "backend", "precision")}
    width, height = options.image
    shots = render_scenes(0, 1, options.frames, width, height, progress=lambda done, total: None)
    for kind in ("raw", "jpeg"):
        bag = write_bag(folder / kind, _messages([shot.rgb for shot in shots], kind))
        plan = make_plan(BagInput(bag), Request(values, topics=options.topics.split(","), only_depth=True))
        with closing(Here(Recipe.of(plan.settings), options.batch, print)) as predictor:
            images, alone, whole = [shot.rgb for shot in shots], [], []
            size = predictor.batch
            predictor.network.predict(images[:size], 0)
            for number in range(options.rounds):
                begin = time.perf_counter()
                for at in range(0, len(images), size):
                    predictor.submit(images[at : at + size], 0).result()
                alone.append(len(images) / (time.perf_counter() - begin))
                begin = time.perf_counter()
                done = Conversion(plan, predictor).run(folder / f"{kind}_out{number}")
                whole.append(len(images) / (time.perf_counter() - begin))
                assert done.with_depth == len(images)
        ratios = [one / other for one, other in zip(whole, alone)]
        print(
            f"{kind}: network alone {statistics.median(alone):.2f} frames/s, depth_bag {statistics.median(whole):.2f}: "
            f"{statistics.median(ratios):.1%} ({min(ratios):.1%} to {max(ratios):.1%})"
        )


def _messages(images: list[np.ndarray], kind: str):
    for number, rgb in enumerate(images):
        stamp = START + number * 33_333_333
        yield "/camera/camera_info", stamp, camera_info(header_of(stamp), rgb.shape[1], rgb.shape[0])
        if kind == "raw":
            yield "/camera/image_raw", stamp + 1, image_of(rgb, stamp)
        else:
            jpeg = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes()
            yield "/camera/image_raw/compressed", stamp + 1, CompressedImage(header=header_of(stamp), format="jpeg", data=jpeg)


if __name__ == "__main__":
    main()
