# SPDX-License-Identifier: Apache-2.0
"""`depth_finetune BAG --output FOLDER`: A network learns from what a robot's own depth sensor says of its own images.

The result is one file, FOLDER/tuned.safetensors, for `model: custom`. Data is a bag with an image topic and a depth sensor, or
a folder: rgb/NAME.png with depth/NAME.png (16 bits, millimetres) or .npy (metres); NAME.png with NAME_depth.png; TUM RGB-D's.
Ctrl-C keeps what has been learnt; --resume FOLDER goes on as if nothing had happened.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from tqdm import tqdm

from .command_line import add_network_options
from .geometry import ROTATIONS
from .inference import ImageError
from .inference.estimator import choose_device
from .inference.preprocessing import network_size
from .models import (
    METRIC,
    RELATIVE,
    DepthNetwork,
    ModelError,
    check_input_size,
    create_model,
    input_unit,
    new_network,
    rows_of,
)
from .models.zoo import noncommercial
from .training.augment import Augmentation
from .training.data import Data, gather
from .training.draws import Draws
from .training.optimise import Settings
from .training.record import HEADING, SHOWN, Keeper, before_and_after
from .training.samples import Bounds
from .training.start import as_metric, check_trainable, fit_last_layer, with_row
from .training.trainer import Trainer, TrainingError
from .training.validation import Validation

_CROP = 0.7  # smallest part of an image that a relative network is shown
_INTERRUPTED = 130  # as shells say


def main(args: list[str] | None = None) -> int:
    """0: trained; 1: training failed; 2: it cannot be done; 130: interrupted, and can be resumed."""
    parser = _parser()
    options = parser.parse_args(args)
    try:
        if options.resume:
            quiet = {"quiet": options.quiet}
            if vars(options) != vars(parser.parse_args(["--resume", options.resume])) | quiet:
                raise ValueError("--resume takes the options of the run that it goes on with: give no others but --quiet")
            options = argparse.Namespace(**_kept_options(Path(options.resume)) | quiet)
        else:
            _check(options)
        return _run(options)
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


def _parser() -> argparse.ArgumentParser:
    about = __doc__.split(": ", 1)[1]
    parser = argparse.ArgumentParser("depth_finetune", None, about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", help="bags (folders, .mcap, .db3, .bag) and folders of images with depth")
    parser.add_argument("--output", help="new folder for the network, its state, log and pictures")
    parser.add_argument("--resume", default="", metavar="FOLDER", help="go on with the run in this folder; no other options")
    add_network_options(parser, "v2_metric_indoor")
    parser.set_defaults(backend="torch")
    what = parser.add_argument_group("another kind of network")
    what.add_argument(
        "--metric", type=float, default=0.0, metavar="METRES", help="let a relative network say metres, up to this"
    )
    what.add_argument("--timm", default="", metavar="NAME", help="a new head on this network of timm, instead of --model")
    what.add_argument("--pretrained", action="store_true", help="with --timm: begin with timm's weights (downloaded)")
    data = parser.add_argument_group("data")
    data.add_argument("--image", default="", metavar="TOPIC", help="colour images (default: the one there is)")
    data.add_argument("--depth", default="", metavar="TOPIC", help="depth images, cloud or scan (default: the one there is)")
    data.add_argument("--camera-info", default="", metavar="TOPIC", help="(default: beside the images)")
    data.add_argument("--start", type=float, default=0.0, help="seconds from the bag's beginning")
    data.add_argument("--end", type=float, default=math.inf, help="seconds from the bag's beginning")
    data.add_argument("--every", type=int, default=1, metavar="N", help="take each N-th image of a bag")
    data.add_argument("--max-offset", type=float, default=0.05, help="seconds between two stamps (default: %(default)s)")
    data.add_argument("--transform", action="append", default=[], metavar="TEXT", help="'parent child x y z roll pitch yaw'")
    data.add_argument(
        "--rotation", type=int, default=0, choices=ROTATIONS, help="of a bag's images, as the node's camera.rotation turns them"
    )
    data.add_argument("--depth-scale", type=float, default=0.0, help="of PNGs, values per metre (default: 1000; TUM: 5000)")
    data.add_argument("--min-depth", type=float, default=0.1, help="metres of the sensor that count (default: %(default)s)")
    data.add_argument("--max-depth", type=float, default=math.inf, help="metres (default: as far as the network can say)")
    data.add_argument(
        "--validation",
        default="0.2",
        metavar="SHARE|PATH",
        help="of each recording, or another one (default: %(default)s)",
    )
    how = parser.add_argument_group("training")
    how.add_argument("--steps", type=int, default=2000, help="batches in all (default: %(default)s)")
    how.add_argument("--batch", type=int, default=4, help="images in a batch (default: %(default)s)")
    how.add_argument("--rate", type=float, default=5e-5, help="largest learning rate of the head (default: %(default)s)")
    how.add_argument("--encoder-rate", type=float, help="of the encoder (default: a tenth of --rate)")
    how.add_argument("--freeze-encoder", action="store_true", help="train the head alone: faster, with less data")
    how.add_argument("--checkpointing", action="store_true", help="less memory, more time, the same result")
    how.add_argument("--validate-every", type=int, default=0, metavar="N", help="steps (default: a tenth of --steps)")
    how.add_argument("--seed", type=int, default=0, help="of order, augmentation and new layers")
    how.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def _check(options: argparse.Namespace) -> None:
    """Say at once what would be found out later; fill in what follows from the rest."""
    if not options.data or not options.output:
        raise ValueError("name a bag or a folder of images with depth, and a folder for the result by --output")
    for path in options.data:
        if not Path(path).expanduser().exists():
            raise ValueError(f"there is no '{path}', expected a bag or a folder of images with depth")
    output = Path(options.output)
    if output.exists() and (not output.is_dir() or (output / "state.pt").exists()):
        raise ValueError(f"'{output}' holds a run already: --resume {output} goes on with it; else name another --output")
    for name, least in (("every", 1), ("steps", 1), ("batch", 1), ("validate_every", 0), ("depth_scale", 0), ("metric", 0)):
        if not getattr(options, name) >= least:
            raise ValueError(f"--{name.replace('_', '-')} is {getattr(options, name)}, expected {least} at least")
    for low, high in (("start", "end"), ("min_depth", "max_depth")):
        first, last = getattr(options, low), getattr(options, high)
        if not 0 <= first < last:
            raise ValueError(f"--{low.replace('_', '-')} {first:g} is not below --{high.replace('_', '-')} {last:g}")
    options.encoder_rate = options.rate / 10 if options.encoder_rate is None else options.encoder_rate
    if not (options.rate > 0 and options.encoder_rate >= 0):
        raise ValueError("--rate is above 0, and --encoder-rate at least 0 (see --freeze-encoder)")
    if options.backend not in ("auto", "torch") or options.precision == "fp16":
        raise ValueError("training runs on torch, in fp32 or bf16: leave --backend and --precision as they are")
    if options.pretrained and not options.timm:
        raise ValueError("--pretrained goes with --timm; other networks begin with their own weights")
    options.validate_every = options.validate_every or max(1, options.steps // 10)
    options.data = [str(Path(path).expanduser().absolute()) for path in options.data]
    for name in ("output", "checkpoint", "validation"):
        path = Path(getattr(options, name)).expanduser()
        if getattr(options, name) and (name == "output" or path.exists()):
            setattr(options, name, str(path.absolute()))


def _kept_options(folder: Path) -> dict:
    try:
        said = json.loads((folder / "options.json").read_text())
        return said | {"resume": str(folder), "output": str(folder.absolute())}
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"'{folder}' holds no run to go on with: expected options.json and state.pt in it") from error


def _run(options: argparse.Namespace) -> int:
    torch.manual_seed(options.seed)  # for layers that begin at random
    device, output = choose_device(options.device), Path(options.output)
    network, origin, licence = _network(options)
    farthest = min(options.max_depth, network.model.max_depth if network.kind == METRIC else math.inf)
    if options.min_depth >= farthest:
        raise ValueError(f"--min-depth {options.min_depth:g} is beyond the {farthest:g} m that this network can say")
    bounds = Bounds(options.min_depth, farthest)
    output.mkdir(parents=True, exist_ok=True)
    data = _data(options, bounds, output)
    size = network_size(*data.found.size, network.model.input_size, network.patch, 0, network.model.resize)
    if network.kind == METRIC:
        network = with_row(network, training_focal=data.focal)
    if options.metric or options.timm:
        fit_last_layer(network, data.training, bounds, size, trained=not options.timm)
    augmentation = Augmentation(crop=1.0 if network.kind == METRIC else _CROP)
    draws = Draws(data.training, bounds, augmentation, size, options.batch, options.seed)
    trainer = Trainer(network, draws, Validation(data.held_out, bounds, size), _settings(options, device), device)
    for line in data.facts:
        print(line)
    found = f"{data.found.valid:.0%} of the pixels have depth, median {data.found.median:.2f} m"
    print(f"{len(data.training)} images to train on, {len(data.held_out)} held out; {found}")
    print(f"{origin} ({network.kind}) at {size[0]}x{size[1]} on {device}, licence: {licence}")
    before = trainer.validation.shown(trainer.average, SHOWN)
    if options.resume:
        trainer.resume(output / "state.pt")
        print(f"going on from step {trainer.step}")
    (output / "options.json").write_text(json.dumps(vars(options), indent=1) + "\n")
    keep = Keeper(trainer, output, origin, licence, tqdm.write)
    with _stopping() as stopped, tqdm(total=options.steps, initial=trainer.step, disable=options.quiet, unit="step") as bar:
        tqdm.write(HEADING + ("   (after alignment by scale and shift)" if network.kind == RELATIVE else ""))
        finished = trainer.run(output / "state.pt", keep.validated, stopped, lambda loss: bar.update())
    if not finished:
        print(f"depth_finetune: stopped at step {trainer.step}; to go on: depth_finetune --resume {output}", file=sys.stderr)
        return _INTERRUPTED
    best = create_model("custom", "", str(keep.file), options.allow_noncommercial).to(device)
    before_and_after(before, trainer.validation.shown(best, SHOWN), output / "before_after.png")
    _conclude(trainer, keep)
    return 0


def _network(options: argparse.Namespace) -> tuple[DepthNetwork, str, str]:
    """The network to train, what it is trained from, and the licence that it inherits."""
    if options.timm:
        kind = METRIC if options.metric else RELATIVE
        network = new_network(options.timm, kind, options.metric, options.input_size, pretrained=options.pretrained)
        if not network.pretrained.any_size:
            raise ModelError(f"'{options.timm}' takes images of one size only: choose one that takes any, such as a vit_*")
        licence = network.pretrained.model.pretrained_cfg.get("license") or "unknown"
        return network, f"timm/{options.timm}", licence if options.pretrained else "your own"
    row, sizes, encoder = rows_of(options.model, options.encoder, options.checkpoint)
    size = options.input_size or row.input_size
    check_input_size(size, input_unit(row, sizes))
    network = create_model(options.model, options.encoder, options.checkpoint, options.allow_noncommercial)
    check_trainable(network, bool(options.metric))
    network = with_row(network, input_size=size)
    network = as_metric(network, options.metric) if options.metric else network
    return network, f"{options.model}/{encoder}", row.licence(encoder)


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
        options.encoder_rate,
        options.freeze_encoder,
        options.checkpointing,
        half,
        validate_every=options.validate_every,
    )


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
    accept = " --allow-noncommercial" if noncommercial(keep.licence) else ""
    print(
        f"\nros2 launch depth_anything_ros depth.launch.py params_file:={keep.parameters()}\n"
        f"depth_image photo.jpg --model custom --checkpoint {keep.file}{accept}"
    )


if __name__ == "__main__":
    sys.exit(main())
