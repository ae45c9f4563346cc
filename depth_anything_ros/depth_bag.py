# SPDX-License-Identifier: Apache-2.0
"""`depth_bag INPUT... OUTPUT`: a bag in, a bag with depth out; nothing dropped, nothing lost."""

from __future__ import annotations

import argparse
import functools
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from difflib import get_close_matches
from pathlib import Path

from tqdm import tqdm

from .inference import InferenceError, keep_large_buffers, make_deterministic
from .models import ModelError
from .replay import check_matplotlib
from .replay.bag_input import BagInput
from .replay.convert import Conversion
from .replay.messages import BagError
from .replay.parameters import preset_file, read_assignment, read_file
from .replay.parts import Progress, check_free
from .replay.plan import Plan, Request, make_plan
from .replay.predictors import Here, Predictor, Processes, Recipe
from .stream.table import CAMERA_TABLE, TABLE

INCOMPLETE = 3  # exit code: some images got no depth
_SAID = (BagError, ModelError, ValueError, InferenceError, OSError)  # what a user can do something about
_LINE_EVERY = 30.0  # seconds
_UNITS = {"": 1, "k": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def main(args: list[str] | None = None) -> int:
    """0: every image got its depth; 1: it was interrupted or failed; 2: it cannot be done so; 3: some images got none."""
    options = parser().parse_args(args)
    try:
        return _run(options)
    except _SAID as error:
        print(f"depth_bag: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("depth_bag: interrupted; the same command with --resume goes on", file=sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="depth_bag", description="Give every image of a bag its depth.")
    made.add_argument("input", nargs="+", type=Path, help="bags: folders, .mcap, .db3 or .bag (ROS 1)")
    made.add_argument("output", type=Path, help="the new bag; of several inputs, the folder for them")
    which = made.add_argument_group("which images, which depth")
    which.add_argument("--image", action="append", default=[], help="image topic (default: all cameras that are found)")
    which.add_argument("--camera-info", action="append", default=[], help="its calibration (default: camera_info beside it)")
    which.add_argument("--preset", help="a robot of config/robots, or a parameter file: topics, frame, rectification, model")
    which.add_argument("--params-file", action="append", default=[], type=Path, help="parameters, as of the depth node")
    which.add_argument("-p", dest="param", action="append", default=[], metavar="NAME:=VALUE", help="one parameter")
    which.add_argument("--topics", type=_names, default=(), help="outputs (default: depth/image,depth/camera_info)")
    which.add_argument("--start", type=float, default=0.0, help="seconds from the beginning of the bag")
    which.add_argument("--end", type=float, default=0.0, help="seconds from the beginning of the bag (default: its end)")
    which.add_argument("--every", type=int, default=1, metavar="N", help="depth of every N-th image only")
    how = made.add_argument_group("what is written")
    how.add_argument("--only-depth", action="store_true", help="leave out what was in the bag")
    how.add_argument("--namespace", default="depth_anything", help="of the new topics (default: %(default)s)")
    how.add_argument("--storage", default="", choices=("mcap", "sqlite3"), help="(default: as the input)")
    how.add_argument("--compress", action="store_true", help="with zstd")
    how.add_argument("--split-size", type=_bytes, default=1 << 30, help="bytes per file, such as 500M (default: 1G)")
    how.add_argument("--resume", action="store_true", help="go on with what an interrupted run has left, if there is any")
    how.add_argument("--preview", type=Path, metavar="FILE.mp4", help="a film: camera and depth side by side")
    how.add_argument("--report", type=Path, metavar="FILE.html", help="thumbnails, rate, gaps, scale, flicker")
    who = made.add_argument_group("who works")
    who.add_argument("--batch", type=int, default=0, help="images in one pass (default: 8 on a GPU, else 1)")
    who.add_argument("--workers", type=int, default=0, metavar="N", help="processes on this machine, each with a network")
    who.add_argument("--ray", metavar="ADDRESS", help="work on a Ray cluster; local: start one here")
    who.add_argument("--quiet", action="store_true", help="no progress bar")
    return made


def _run(options: argparse.Namespace) -> int:
    for name, least in (("every", 1), ("batch", 0), ("workers", 0), ("split_size", 1)):
        if getattr(options, name) < least:
            raise ValueError(f"--{name.replace('_', '-')} is {getattr(options, name)}, expected {least} at least")
    for path, ending in ((options.preview, ".mp4"), (options.report, ".html")):
        if path and (path.suffix != ending or path.is_dir() or not path.absolute().parent.is_dir()):
            raise ValueError(f"'{path}' cannot be written: expected a name that ends in {ending}, in a folder that is there")
    if options.report:
        check_matplotlib("--report")
    request = _request(options)
    if len(options.input) == 1:
        return _convert(options.input[0], options.output, request, options)
    if options.preview or options.report:
        raise ValueError("--preview and --report take one bag")
    places = {path: options.output / (path.stem if path.is_file() else path.absolute().name) for path in options.input}
    if len(set(places.values())) < len(options.input):
        raise ValueError(f"several inputs would become one bag: {', '.join(map(str, sorted(places.values())))}")
    if options.output.is_file() or (options.output / "metadata.yaml").exists():
        raise ValueError(f"'{options.output}' is a bag: for several inputs, the last name is that of a folder for the new bags")
    options.output.mkdir(parents=True, exist_ok=True)
    if 0 < options.workers <= len(places) or options.ray is not None and not len(places) < options.workers:
        return _spread(places, request, options)
    codes = []
    for path, output in places.items():
        try:
            codes.append(_convert(path, output, request, options))
        except _SAID as error:
            _say(f"depth_bag: {path}: {error}")
            codes.append(2)
    return _worst(codes)


def _worst(codes: list[int]) -> int:
    """The exit code of several bags: one that failed goes before one that is incomplete."""
    return next((code for code in (1, 2, INCOMPLETE) if code in codes), 0)


def _request(options: argparse.Namespace) -> Request:
    values: dict[str, object] = {}
    for path in [*([preset_file(options.preset)] if options.preset else []), *options.params_file]:
        values |= read_file(path)
    for text in options.param:
        values |= read_assignment(text)
    return Request(
        values,
        tuple(f"/{topic.lstrip('/')}" for topic in options.image),
        tuple(f"/{topic.lstrip('/')}" for topic in options.camera_info),
        options.topics,
        options.namespace,
        options.start,
        options.end,
        options.every,
        options.only_depth,
        options.storage,
        options.compress,
        options.split_size,
    )


def _convert(path: Path, output: Path, request: Request, options: argparse.Namespace) -> int:
    """One bag."""
    plan = make_plan(BagInput(path), request)
    _shown(plan, options)
    _check_names(plan.unknown, [text.partition(":=")[0] for text in options.param])
    if path.resolve() in (output.resolve(), *output.resolve().parents):
        raise BagError(f"'{output}' is the input, or lies in it: choose another name for the output")
    if not options.resume:
        check_free(output, resume=False)
    network = plan.settings.network
    licence = plan.settings.model.licence(network.encoder)
    _say(f"{path} -> {output}: {', '.join(topics.image for topics in plan.cameras.values())}")
    _say(f"network {network.model}/{network.encoder}, licence of the weights: {licence}")
    for line in (*plan.bag.damage, *plan.notes, *(f"no such parameter: {name}" for name in plan.unknown)):
        _say(f"warning: {line}")
    keep_large_buffers()
    make_deterministic(plan.settings.deterministic)
    known = len(plan.bag.damage)
    with (
        closing(_predictor(plan, options)) as predictor,
        tqdm(total=plan.images, unit="frame", disable=options.quiet or None, dynamic_ncols=True) as bar,
    ):
        tell = _Lines(plan.images, options.quiet) if bar.disable else functools.partial(_advance, bar)
        begin, conversion = time.monotonic(), Conversion(plan, predictor, tell)
        done = conversion.run(output, options.resume)
        rate = (done.images - conversion.images_before) / (time.monotonic() - begin)
    for line in plan.bag.damage[known:]:
        _say(f"warning: {line}")
    _summarise(done, output, "complete already" if conversion.was_finished else f"{rate:.2f} frames/s")
    if not done.images:
        _say(f"warning: no image of {', '.join(topics.image for topics in plan.cameras.values())} was recorded in that time")
    _look(plan, output, done, options)
    return 0 if 0 < done.images == done.with_depth else INCOMPLETE


def _check_names(unknown: Sequence[str], asked: Sequence[str]) -> None:
    """Raise a ValueError if a parameter of the command line is none; one of a file may be for another node."""
    for name in unknown:
        if name in asked:
            alike = get_close_matches(name, [row.name for row in TABLE] + [f"camera.{row.name}" for row in CAMERA_TABLE])
            raise ValueError(f"there is no parameter {name}" + (f": did you mean {' or '.join(alike)}?" if alike else ""))


def _predictor(plan: Plan, options: argparse.Namespace) -> Predictor:
    recipe = Recipe.of(plan.settings, plan.topics)
    if options.ray is not None:
        from .replay.fleet import RayActors

        return RayActors(recipe, options.ray, options.workers, options.batch)
    return Processes(recipe, options.workers, options.batch) if options.workers else Here(recipe, options.batch, _say)


def _advance(bar: tqdm, images: int, before: int) -> None:
    bar.initial = before
    bar.update(images - bar.n)


class _Lines:
    """Progress where there is no terminal for a bar: a line now and then."""

    def __init__(self, total: int, quiet: bool):
        self._total, self._quiet, self._last = total, quiet, time.monotonic()

    def __call__(self, images: int, before: int) -> None:
        if not self._quiet and time.monotonic() - self._last > _LINE_EVERY:
            self._last = time.monotonic()
            _say(f"{images} of about {self._total} images")


def _summarise(done: Progress, output: Path, how: str) -> None:
    size = sum(path.stat().st_size for path in output.iterdir()) / (1 << 20)
    _say(f"{output}: {done.with_depth} of {done.images} images have depth; {size:.1f} MiB; {how}")
    for what, (count, first) in sorted(done.problems.items()):
        _say(f"warning: {what} ({count} times): {first}")


def _shown(plan: Plan, options: argparse.Namespace) -> str:
    """The output that the film and the report are made of.

    Raises:
        ValueError: one of them is asked for, but there is none.
    """
    found = next((name for name in ("depth/image", "depth/relative") if name in plan.topics), "")
    if not found and (options.preview or options.report):
        raise ValueError("--preview and --report need depth/image or depth/relative among the --topics")
    return found


def _look(plan: Plan, output: Path, done: Progress, options: argparse.Namespace) -> None:
    """The film and the report, made of the bags."""
    if not options.preview and not options.report:
        return
    from .replay.look import Pair

    shown, made = _shown(plan, options), BagInput(output)
    images = plan.bag.between(plan.start_ns, plan.end_ns) if options.only_depth else made
    pairs = [
        Pair(name, topics.image, plan.topic(name, shown), shown == "depth/relative", plan.request.every)
        for name, topics in plan.cameras.items()
    ]
    if options.preview:
        from .replay.preview import write_preview

        write_preview(images, made, pairs, options.preview)
        _say(f"wrote {options.preview}")
    if options.report:
        from .replay.report import write_report  # matplotlib is an extra

        network = plan.settings.network
        summary = {
            "input": str(plan.bag.path),
            "network": f"{network.model}/{network.encoder}",
            "licence of the weights": plan.settings.model.licence(network.encoder),
            "images with depth": f"{done.with_depth} of {done.images}",
            **({"images looked at": f"one of {plan.request.every}"} if plan.request.every > 1 else {}),
            **{what: f"{count} times: {first}" for what, (count, first) in sorted(done.problems.items())},
            **({"not readable": "; ".join(plan.bag.damage)} if plan.bag.damage and images is made else {}),
        }
        write_report(images, made, pairs, options.report, summary)
        _say(f"wrote {options.report}")


def _spread(places: dict[Path, Path], request: Request, options: argparse.Namespace) -> int:
    """Several bags, each of them on one worker."""
    from .replay.fleet import on_processes, on_ray

    alone = argparse.Namespace(**(vars(options) | {"workers": 0, "ray": None, "quiet": True}))
    tasks = [functools.partial(_again, path, output, request, alone) for path, output in places.items()]
    ended = on_processes(tasks, options.workers) if options.ray is None else on_ray(tasks, options.ray, options.workers)
    codes = []
    for number, result in tqdm(ended, total=len(tasks), unit="bag", disable=options.quiet or None):
        if isinstance(result, Exception):
            _say(f"depth_bag: {options.input[number]}: {result}")
        codes.append(2 if isinstance(result, Exception) else result)
    return _worst(codes)


def _again(path: Path, output: Path, request: Request, options: argparse.Namespace) -> int:
    """One bag on a worker, which may have died of it before: then it is gone on with."""
    mark = output.with_name(f"{output.name}.partial") / ".state" / "fleet"
    options.resume = options.resume or mark.exists()
    if not options.resume and not output.exists() and not mark.parent.parent.exists():
        mark.parent.mkdir(parents=True)
        mark.touch()
        options.resume = True
    try:
        return _convert(path, output, request, options)
    finally:
        if mark.exists() and not mark.with_name("plan").exists():  # it cannot be done: nothing was begun
            shutil.rmtree(mark.parent.parent, ignore_errors=True)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _bytes(text: str) -> int:
    unit = text[-1:] if text[-1:] in _UNITS and text[-1:] else ""
    try:
        return int(float(text.removesuffix(unit)) * _UNITS[unit])
    except (ValueError, KeyError, OverflowError) as error:
        raise argparse.ArgumentTypeError(f"{text} is no size such as 500M or 2G") from error


def _say(line: str) -> None:
    tqdm.write(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
