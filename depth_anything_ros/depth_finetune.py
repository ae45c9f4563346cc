# SPDX-License-Identifier: Apache-2.0
"""`depth_finetune BAG --output FOLDER`: A network learns from what a robot's own depth sensor says of its own images.

The result is one file, FOLDER/tuned.safetensors, for `model: custom`. Data is a bag with an image topic and a depth sensor, or
a folder: rgb/NAME.png with depth/NAME.png (16 bits, millimetres) or .npy (metres); NAME.png with NAME_depth.png; TUM RGB-D's.
Ctrl-C keeps what has been learnt; --resume FOLDER goes on as if nothing had happened.
"""

from __future__ import annotations

import argparse
import fcntl
import itertools
import json
import math
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from tqdm import tqdm

from .inference import ImageError
from .inference.estimator import choose_device
from .inference.preprocessing import network_size
from .models import (
    METRIC,
    RELATIVE,
    DepthNetwork,
    LicenceError,
    ModelError,
    check_input_size,
    create_model,
    input_unit,
    new_network,
    rows_of,
)
from .models.files import whole_file
from .models.zoo import noncommercial
from .training.augment import Augmentation
from .training.data import Data, gather
from .training.draws import Draws
from .training.optimise import Settings, in_training
from .training.options import chosen_options
from .training.record import HEADING, SHOWN, Keeper, before_and_after
from .training.samples import Bounds
from .training.start import as_metric, check_trainable, fit_last_layer, with_row
from .training.trainer import Trainer, TrainingError
from .training.validation import Validation

_CROP = 0.7  # smallest part of an image that a relative network is shown
_INTERRUPTED = 130  # as shells say


def main(args: list[str] | None = None) -> int:
    """0: trained; 1: training failed; 2: it cannot be done; 130: interrupted, and can be resumed."""
    try:
        return _run(chosen_options(__doc__.split(": ", 1)[1], args))
    except (ModelError, ImageError, OSError, ValueError) as error:
        print(f"depth_finetune: {error}", file=sys.stderr)
        return 2
    except TrainingError as error:
        print(f"depth_finetune: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "depth_finetune: interrupted; the same command begins anew, --resume FOLDER after the first step", file=sys.stderr
        )
        return _INTERRUPTED


def _run(options: argparse.Namespace) -> int:
    torch.manual_seed(options.seed)  # for layers that begin at random
    settings = _settings(options, choose_device(options.device))
    network, origin, licence = _network(options)
    in_training(network, settings)  # says now, and not at the first step, what cannot be
    farthest = min(options.max_depth, network.model.max_depth if network.kind == METRIC else math.inf)
    if options.min_depth >= farthest:
        raise ValueError(f"--min-depth {options.min_depth:g} is beyond the {farthest:g} m that this network can say")
    with _alone(Path(options.output)):
        return _train(options, settings, Bounds(options.min_depth, farthest), network, origin, licence)


def _train(
    options: argparse.Namespace, settings: Settings, bounds: Bounds, network: DepthNetwork, origin: str, licence: str
) -> int:
    device, output = choose_device(options.device), Path(options.output)
    data = _data(options, bounds, output)
    size = network_size(*data.found.size, network.model.input_size, network.patch, 0, network.model.resize)
    if network.kind == METRIC:
        network = with_row(network, training_focal=data.focal)
    if network.encoder.timm and not network.pretrained.any_size:
        network = network.at_size(size[1], size[0])
    if options.metric or options.timm:
        fit_last_layer(network, data.training, bounds, size, trained=not options.timm)
    augmentation = Augmentation(crop=1.0 if network.kind == METRIC else _CROP)
    draws = Draws(data.training, bounds, augmentation, size, options.batch, options.seed)
    trainer = Trainer(network, draws, Validation(data.held_out, bounds, size), settings, device)
    for line in data.facts:
        print(line)
    found = f"{data.found.valid:.0%} of the pixels have depth, median {data.found.median:.2f} m"
    print(f"{len(data.training)} images to train on, {len(data.held_out)} held out; {found}")
    print(f"{origin} ({network.kind}) at {size[0]}x{size[1]} on {device}, licence: {licence}")
    before = trainer.validation.shown(trainer.average, SHOWN)
    if options.resume:
        trainer.resume(output / "state.pt")
        print(f"going on from step {trainer.step}")
    with whole_file(output / "options.json") as file:
        file.write_text(json.dumps(vars(options), indent=1) + "\n")
    keep = Keeper(trainer, output, origin, licence, tqdm.write)
    with _stopping() as stopped, tqdm(total=options.steps, initial=trainer.step, disable=options.quiet, unit="step") as bar:
        tqdm.write(HEADING + ("   (after alignment by scale and shift)" if network.kind == RELATIVE else ""))
        finished = trainer.run(output / "state.pt", keep.validated, stopped, lambda loss: bar.update())
    if not finished:
        again = shlex.join(["depth_finetune", "--resume", str(output)])
        print(f"depth_finetune: stopped at step {trainer.step}; to go on: {again}", file=sys.stderr)
        return _INTERRUPTED
    best = create_model("custom", "", str(keep.file), allow_noncommercial=True).to(device)  # accepted at the beginning
    before_and_after(before, trainer.validation.shown(best, SHOWN), output / "before_after.png")
    _conclude(trainer, keep)
    return 0


def _network(options: argparse.Namespace) -> tuple[DepthNetwork, str, str]:
    """The network to train, what it is trained from, and the licence that it inherits."""
    if options.timm:
        kind = METRIC if options.metric else RELATIVE
        licence = _licence_of_timm(options) if options.pretrained else "your own"
        start = {"pretrained": options.pretrained, "taps": tuple(options.taps)}
        network = new_network(options.timm, kind, options.metric, options.input_size, **start)
        return network, f"timm/{options.timm}", licence
    row, sizes, encoder = rows_of(options.model, options.encoder, options.checkpoint)
    size = options.input_size or row.input_size
    check_input_size(size, input_unit(row, sizes))
    network = create_model(options.model, options.encoder, options.checkpoint, options.allow_noncommercial)
    check_trainable(network, bool(options.metric))
    network = with_row(network, input_size=size)
    network = as_metric(network, options.metric) if options.metric else network
    return network, f"{options.model}/{encoder}", row.licence(encoder)


def _licence_of_timm(options: argparse.Namespace) -> str:
    from .models.timm_encoder import licence_of  # imports timm

    licence = licence_of(options.timm)
    if noncommercial(licence) and not options.allow_noncommercial:
        raise LicenceError(
            f"timm's weights of '{options.timm}' are under {licence}: no commercial use, as far as is known. Give "
            "--allow-noncommercial if that is what you do, or begin without --pretrained"
        )
    return licence


def _data(options: argparse.Namespace, bounds: Bounds, output: Path) -> Data:
    number = itertools.count()  # bags of several days may have one name

    def open_bag(path: Path) -> tuple[Path, dict]:
        from .training.bags import Selection, extract  # folders need no ROS

        topics = (f"/{topic.lstrip('/')}" if topic else "" for topic in (options.image, options.depth, options.camera_info))
        times = options.start, options.end, options.every, options.max_offset
        selection = Selection(*topics, *times, tuple(options.transform), options.rotation)
        folder = output / "samples" / f"{next(number)}_{path.name}"
        with tqdm(desc=f"reading {path.name}", unit="image", disable=options.quiet, leave=False) as bar:
            return folder, extract(path, selection, folder, lambda images: bar.update())

    with tqdm(desc="looking at depth", unit="image", disable=options.quiet, leave=False) as bar:
        paths = [Path(path) for path in options.data]
        return gather(paths, options.validation, open_bag, bounds, options.depth_scale, bar.update)


def _settings(options: argparse.Namespace, device: torch.device) -> Settings:
    half = device.type == "cuda" and options.precision != "fp32" and torch.cuda.is_bf16_supported()
    return Settings(
        options.steps,
        options.rate,
        options.rate / 10 if options.encoder_rate is None else options.encoder_rate,
        options.freeze_encoder,
        options.checkpointing,
        half,
        validate_every=options.validate_every or max(1, options.steps // 10),
    )


@contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Make the folder, and see that nobody else writes a run into it meanwhile."""
    output.mkdir(parents=True, exist_ok=True)
    with (output / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"another depth_finetune is at work in '{output}': wait for it, or name another --output"
            ) from error
        yield


@contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """Tells whether somebody has asked us to stop, by Ctrl-C or SIGTERM; a second time, it is done at once."""
    asked: list[int] = []

    def ask(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _conclude(trainer: Trainer, keep: Keeper) -> None:
    """Say how good it is and how to use it."""
    (best, step), first = trainer.best, trainer.first
    how = ", after alignment by scale and shift" if trainer.network.kind == RELATIVE else ""
    print(
        f"\n{keep.file}\nAbsRel {first.abs_rel:.4f} -> {best.abs_rel:.4f}, RMSE {first.rmse:.3f} -> {best.rmse:.3f} m, delta1 "
        f"{first.delta1:.4f} -> {best.delta1:.4f} on images held out{how} (step {step})"
    )
    if not step:
        print("No step made it better: this is the network as it was. Less --rate, more data, or look at before_after.png.")
    accept = ["--allow-noncommercial"] if noncommercial(keep.licence) else []
    launch = ["ros2", "launch", "depth_anything_ros", "depth.launch.py", f"params_file:={keep.parameters()}"]
    image = ["depth_image", "photo.jpg", "--model", "custom", "--checkpoint", str(keep.file), *accept]
    print(f"\n{shlex.join(launch)}\n{shlex.join(image)}")


if __name__ == "__main__":
    sys.exit(main())
