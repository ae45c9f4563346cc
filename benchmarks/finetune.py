# SPDX-License-Identifier: Apache-2.0
"""The embedded model on a camera that it has never seen, before and after `depth_finetune`; metres as they are, no alignment.

    python benchmarks/finetune.py              # renders, trains, prints error before and after, and the minutes
    python benchmarks/finetune.py --bag drive  # instead, a bag of a drive with this camera and its depth sensor

The camera, chosen once: a wide lens (100 degrees across; the model knows 62 and 69), 1.6 m above the ground and 30 degrees
down (it knows up to 1.3 m and 16 degrees), with a green cast, little colour and a hard gamma that its training does not reach.
Rooms, corridors, halls and streets, others in training, in validation and in the test, which nothing sees but the figures.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from depth_anything_ros import depth_finetune
from depth_anything_ros.demo.families import HELD_OUT_SEED, PLACES, random_scene
from depth_anything_ros.demo.photograph import photograph
from depth_anything_ros.demo.raycast import render
from depth_anything_ros.demo.scenes import Scene, View, drive, focal_from_fov
from depth_anything_ros.demo.sources import Shot
from depth_anything_ros.models import DepthNetwork, create_model
from depth_anything_ros.training.folders import pairs_in
from depth_anything_ros.training.samples import Bounds
from depth_anything_ros.training.validation import Validation

WIDTH, HEIGHT = 256, 192
FOV, ABOVE_GROUND, DOWN = 100.0, 1.6, 30.0  # degrees, metres, degrees
CAST, SATURATION, GAMMA = (0.7, 1.1, 0.75), 0.4, 1.7
FARTHEST = 20.0  # metres: what the embedded model can say
TRAINING_SEED, VALIDATION_SEED, TEST_SEED = 5_000_000, HELD_OUT_SEED + 40_000, HELD_OUT_SEED + 50_000


def mounted(seed: int) -> tuple[Scene, View]:
    """A scene, and the new camera where the robot's was."""
    scene, view = random_scene(seed, PLACES[seed % len(PLACES)])
    position = view.position.clone()
    position[:, 2] = ABOVE_GROUND
    pitch, focal = torch.full_like(view.pitch, math.radians(DOWN)), torch.full_like(view.focal, focal_from_fov(FOV))
    return scene, replace(view, position=position, pitch=pitch, focal=focal)


def photographed(scene: Scene, view: View, seed: int) -> Shot:
    """What the new camera makes of it, with exact depth; beyond 20 m its sensor sees nothing."""
    seen = render(scene, view, WIDTH, HEIGHT)
    image = photograph(seen.rgb.permute(0, 3, 1, 2), torch.Generator().manual_seed(seed))[0]
    grey = image.mean(0, keepdim=True)
    image = (grey + SATURATION * (image - grey)).clamp(0, 1) ** GAMMA * torch.tensor(CAST)[:, None, None]
    rgb = (image.clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()
    depth = seen.depth[0].numpy()
    return Shot(np.ascontiguousarray(rgb), np.where(depth < FARTHEST, depth, 0).astype(np.float32), float(view.focal) * WIDTH)


def write_folder(folder: Path, first_seed: int, count: int) -> Path:
    """`count` scenes as rgb/ and depth/, in millimetres as sensors have them."""
    for name in ("rgb", "depth"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for seed in range(first_seed, first_seed + count):
        if not (folder / "depth" / f"{seed}.png").exists():
            shot = photographed(*mounted(seed), seed)
            cv2.imwrite(str(folder / "rgb" / f"{seed}.png"), cv2.cvtColor(shot.rgb, cv2.COLOR_RGB2BGR))
            cv2.imwrite(str(folder / "depth" / f"{seed}.png"), np.rint(shot.depth * 1000).astype(np.uint16))
    return folder


def drive_messages(count: int, first: int) -> Iterator[tuple[str, int, object]]:
    """(topic, time, message) of a drive through `count` / 10 places: images, depth aligned with them, calibration."""
    from sensor_msgs.msg import Image

    from depth_anything_ros.geometry import Camera
    from depth_anything_ros.messages.camera_info import info_of_camera
    from depth_anything_ros.messages.cdr import ImageHeader
    from depth_anything_ros.messages.outgoing import ros_header

    camera = Camera.from_fov(WIDTH, HEIGHT, FOV)
    for place in range(first, first + math.ceil(count / 10)):
        scene, view = mounted(TRAINING_SEED + 500_000 + place)
        views = drive(view, 10)
        for k in range(10):
            time_ns = 1_700_000_000_000_000_000 + (10 * place + k) * 200_000_000
            shot = photographed(scene, views.at(k), TRAINING_SEED + 10 * place + k)
            header = ros_header(ImageHeader(*divmod(time_ns, 10**9), "camera_color_optical_frame"))
            millimetres = np.rint(shot.depth * 1000).astype(np.uint16)
            for topic, pixels, encoding in (("color", shot.rgb, "rgb8"), ("aligned_depth_to_color", millimetres, "16UC1")):
                message = Image(header=header, height=HEIGHT, width=WIDTH, encoding=encoding, step=pixels.strides[0])
                message.data.frombytes(pixels.tobytes())
                yield f"/camera/{topic}/camera_info", time_ns, info_of_camera(header, camera)
                yield f"/camera/{topic}/image_raw", time_ns, message


def write_bag(path: Path, count: int, first: int) -> None:
    """A bag of `drive_messages`."""
    from rosbags.rosbag2 import StoragePlugin, Writer

    from depth_anything_ros.replay.messages import to_cdr, type_name, typestore

    known = {}
    with Writer(path, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        for topic, time_ns, message in drive_messages(count, first):
            if topic not in known:
                known[topic] = writer.add_connection(topic, type_name(type(message)), typestore=typestore())
            writer.write(known[topic], time_ns, to_cdr(message))


def main() -> int:
    """Render, train, measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path("out/finetune"), help="for images and results")
    parser.add_argument("--images", type=int, default=400, help="to train on (default: %(default)s)")
    parser.add_argument("--tests", type=int, default=96, help="scenes of the figures (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--rate", default="3e-4")
    parser.add_argument("--bag", type=Path, metavar="NEW", help="only write a bag of this many --images")
    parser.add_argument("--first", type=int, default=0, metavar="PLACE", help="of the bag; another drive with another number")
    options = parser.parse_args()
    if options.bag:
        write_bag(options.bag, options.images, options.first)
        return 0
    began = time.monotonic()
    training = write_folder(options.folder / "training", TRAINING_SEED, options.images)
    validation = write_folder(options.folder / "validation", VALIDATION_SEED, 24)
    tests = write_folder(options.folder / "test", TEST_SEED, options.tests)
    rendered, worked, run = time.monotonic(), time.process_time(), options.folder / f"run_{int(time.time())}"
    command = [str(training), "--validation", str(validation), "--output", str(run), "--model", "demo"]
    command += ["--steps", str(options.steps), "--batch", "8", "--rate", options.rate, "--encoder-rate", options.rate]
    print("depth_finetune", *command, flush=True)
    if depth_finetune.main([*command, "--quiet"]):
        return 1
    minutes, busy = (time.monotonic() - rendered) / 60, (time.process_time() - worked) / 60
    held_out = Validation(pairs_in(tests), Bounds(0.1, FARTHEST), (WIDTH, HEIGHT))
    networks = {"before": create_model("demo"), "after": _tuned(run)}
    found = {name: held_out.figures(network) for name, network in networks.items()}
    scaled = {name: _with_best_scale(network, held_out) for name, network in networks.items()}
    print(f"\n{options.images} images of {WIDTH}x{HEIGHT}: {(rendered - began) / 60:.1f} min to render")
    print(f"{minutes:.1f} min to train and validate, {busy:.1f} of a core")
    print(
        f"{len(held_out.pairs)} scenes of no other use{'AbsRel':>12}{'RMSE, m':>10}{'delta1':>10}{'AbsRel, best one scale':>25}"
    )
    for name, each in found.items():
        print(f"{name:>26}{each.abs_rel:12.3f}{each.rmse:10.2f}{each.delta1:10.3f}{scaled[name]:25.3f}")
    ratio, shape = found["after"].abs_rel / found["before"].abs_rel, scaled["after"] / scaled["before"]
    print(f"error after / before: {ratio:.2f}; with the one scale that suits each best: {shape:.2f}")
    return 0


def _with_best_scale(network: DepthNetwork, test: Validation) -> float:
    """AbsRel after the median ratio of all images is divided out: what a change of scale alone would have reached."""
    shown = test.shown(network, len(test.pairs))
    ratios = [each.depth / each.truth for each in shown]
    scale = float(np.nanmedian(np.concatenate([ratio.ravel() for ratio in ratios])))
    return float(np.mean([np.nanmean(np.abs(ratio / scale - 1)) for ratio in ratios]))


def _tuned(run: Path):
    return create_model("custom", checkpoint=str(run / "tuned.safetensors"))


if __name__ == "__main__":
    sys.exit(main())
