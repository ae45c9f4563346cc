# SPDX-License-Identifier: Apache-2.0
"""The options of `depth_finetune`: those of the command line, or of the run that is gone on with."""

from __future__ import annotations

import argparse
import json
import math
import shlex
from collections.abc import Sequence
from pathlib import Path

from ..command_line import add_network_options
from ..geometry import ROTATIONS
from .record import TUNED


def chosen_options(about: str, args: Sequence[str] | None = None) -> argparse.Namespace:
    """What was asked for, checked as far as that goes without data and network; paths are absolute.

    Args:
        about: what --help says of the command.
        args: None: those of this process.

    Raises:
        ValueError: options that are missing, impossible, or do not go together; the message says which.
    """
    parser = _parser(about)
    options = parser.parse_args(args)
    if not options.resume:
        _check(options)
        return options
    quiet = {"quiet": options.quiet}
    if vars(options) != vars(parser.parse_args(["--resume", options.resume])) | quiet:
        raise ValueError("--resume takes the options of the run that it goes on with: give no others but --quiet")
    return argparse.Namespace(**_kept_options(Path(options.resume).expanduser(), parser) | quiet)


def _parser(about: str) -> argparse.ArgumentParser:
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
    what.add_argument("--taps", type=int, nargs=4, default=(), metavar="LEVEL", help="with --timm: what the head is given")
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
    """Say at once what would be found out later; make paths absolute."""
    if not options.data or not options.output:
        raise ValueError("name a bag or a folder of images with depth, and a folder for the result by --output")
    for path in options.data:
        if not Path(path).expanduser().exists():
            raise ValueError(f"there is no '{path}', expected a bag or a folder of images with depth")
    output = Path(options.output).expanduser()
    if output.exists() and not output.is_dir():
        raise ValueError(f"'{output}' is a file, expected a new folder")
    if (output / "state.pt").exists():
        raise ValueError(
            f"'{output}' holds a run already: --resume {shlex.quote(str(output))} goes on with it; else name another --output"
        )
    if (output / TUNED).exists():
        raise ValueError(f"'{output}' holds a network already: name another --output, or remove '{output / TUNED}'")
    counts = {"every": 1, "steps": 1, "batch": 1, "validate_every": 0, "seed": 0, "depth_scale": 0, "metric": 0}
    for name, least in counts.items():
        if not least <= getattr(options, name) < math.inf:
            raise ValueError(f"--{name.replace('_', '-')} is {getattr(options, name)}, expected a number from {least} up")
    for low, high in (("start", "end"), ("min_depth", "max_depth")):
        first, last = getattr(options, low), getattr(options, high)
        if not 0 <= first < last:
            raise ValueError(f"--{low.replace('_', '-')} {first:g} is not below --{high.replace('_', '-')} {last:g}")
    if not (0 < options.rate < math.inf and 0 <= (options.encoder_rate or 0) < math.inf):
        raise ValueError("--rate is above 0, and --encoder-rate at least 0 (see --freeze-encoder)")
    if options.backend not in ("auto", "torch") or options.precision == "fp16":
        raise ValueError("training runs on torch, in fp32 or bf16: leave --backend and --precision as they are")
    if (options.pretrained or options.taps) and not options.timm:
        raise ValueError("--pretrained and --taps go with --timm; other networks have their own")
    options.data = [str(Path(path).expanduser().absolute()) for path in options.data]
    for name in ("output", "checkpoint", "validation"):
        path = Path(getattr(options, name)).expanduser()
        if getattr(options, name) and (name == "output" or path.exists()):
            setattr(options, name, str(path.absolute()))


def _kept_options(folder: Path, parser: argparse.ArgumentParser) -> dict:
    try:
        said = json.loads((folder / "options.json").read_text())
        return vars(parser.parse_args([])) | said | {"resume": str(folder), "output": str(folder.absolute())}
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"'{folder}' holds no run to go on with: expected options.json and state.pt in it") from error
