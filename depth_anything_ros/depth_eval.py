# SPDX-License-Identifier: Apache-2.0
"""`depth_eval BAG`: How good depth is beside a depth sensor that was recorded with it. Needs metres: no relative output.

Each depth image is compared with the sensor's message of the nearest stamp. A depth image of the same frame and size is
compared pixel by pixel. Everything else becomes points in the sensor's frame, which the transform at the image's stamp takes
into the optical frame; there each is projected to the nearest pixel, and of several at one pixel the nearest is the truth.

Assumed: the sensor is right, it is fixed to the camera, and nothing moves much between the two stamps. A sensor that looks from
elsewhere also sees what is hidden from the camera: at edges this counts as error, the more the farther apart they are.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import asdict, astuple
from pathlib import Path

from .replay import check_matplotlib
from .replay.bag_input import BagInput
from .replay.evaluation import Summary
from .replay.feed import LOOK_AHEAD_NS
from .replay.messages import BagError
from .replay.truth import Comparison, Selection

_NAMES = ("AbsRel", "SqRel", "RMSE", "logRMSE", "delta1", "delta2", "delta3")  # as in Errors


def main(args: list[str] | None = None) -> int:
    """Print the figures; write them as JSON and as a picture if files are named."""
    options = _parser().parse_args(args)
    try:
        _check(options)
        bag = BagInput(options.bag)
        run = Comparison(bag, _selection(options))
        run.all()
    except (BagError, OSError, ValueError) as error:
        print(f"depth_eval: {error}", file=sys.stderr)
        return 2
    summary = run.evaluation.summary()
    for text in (*bag.damage, *sorted(run.pairs.context.problems)):
        print(f"depth_eval: {text}", file=sys.stderr)
    left_out = "; ".join(f"{count} depth images: {text}" for text, count in run.pairs.left_out.values())
    if not summary.pixels:
        count = len(run.evaluation.scores)
        why = f"none of {count} images on {run.depth} has depth where there is truth" if count else left_out
        print(f"depth_eval: nothing to compare: {why or f'no image on {run.depth} in that time'}", file=sys.stderr)
        return 2
    _print(run, summary, left_out)
    try:
        if options.json:
            options.json.write_text(json.dumps(_strict(_figures(run, summary)), indent=1) + "\n")
        if options.plot:
            from .replay.truth_plot import draw  # matplotlib is an extra

            draw(run, summary, options.plot)
    except OSError as error:
        print(f"depth_eval: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    about = __doc__.split(": ", 1)[1]
    parser = argparse.ArgumentParser("depth_eval", None, about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bag", type=Path, help="folder, .mcap, .db3 or .bag with our depth and a depth sensor")
    parser.add_argument("--depth", default="", metavar="TOPIC", help="our depth (default: .../depth/image, 32FC1)")
    parser.add_argument("--truth", default="", metavar="TOPIC", help="depth image, cloud or scan (default: the one there is)")
    parser.add_argument("--max-offset", type=float, default=0.05, help="seconds between the two stamps (default: %(default)s)")
    parser.add_argument("--transform", action="append", default=[], metavar="TEXT", help="'parent child x y z roll pitch yaw'")
    parser.add_argument("--start", type=float, default=0.0, help="seconds from the bag's beginning")
    parser.add_argument("--end", type=float, default=math.inf, help="seconds from the bag's beginning")
    parser.add_argument("--every", type=int, default=1, help="take each N-th depth image", metavar="N")
    parser.add_argument("--min-depth", type=float, default=0.1, help="metres of truth that count, from (default: %(default)s)")
    parser.add_argument("--max-depth", type=float, default=math.inf, help="metres of truth that count, up to")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure, and those of each frame")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw scale and error over time, and an example")
    return parser


def _check(options: argparse.Namespace) -> None:
    """Say at once what would be found out after an hour."""
    limit = LOOK_AHEAD_NS / 1e9
    if not 0 <= options.max_offset <= limit:
        raise ValueError(f"--max-offset is {options.max_offset:g} s, expected 0 to {limit:g}")
    if options.every < 1:
        raise ValueError(f"--every is {options.every}, expected 1 or more")
    for low, high in (("start", "end"), ("min_depth", "max_depth")):
        first, last = getattr(options, low), getattr(options, high)
        if not 0 <= first < last:
            name = low.replace("_", "-")
            raise ValueError(f"--{name} is {first:g} and --{high.replace('_', '-')} {last:g}, expected 0 <= {name} < the other")
    for file in filter(None, (options.json, options.plot)):
        if not file.absolute().parent.is_dir():
            raise ValueError(f"there is no folder '{file.absolute().parent}' to write {file.name} into")
    if options.plot:
        if options.plot.suffix not in (".png", ".pdf", ".svg"):
            raise ValueError(f"--plot is '{options.plot}', expected a name that ends in .png, .pdf or .svg")
        check_matplotlib("--plot")


def _selection(options: argparse.Namespace) -> Selection:
    said = {name: value for name, value in vars(options).items() if name in Selection.__dataclass_fields__}
    said |= {name: f"/{said[name].lstrip('/')}" for name in ("depth", "truth") if said[name]}
    return Selection(**said, transforms=options.transform)


def _figures(run: Comparison, summary: Summary) -> dict:
    """All that --json writes."""
    frames = [asdict(score) for score in run.evaluation.scores]
    series = {name: [frame[name] for frame in frames] for name in frames[0]}
    for name in ("errors", "shape"):
        series[name] = {key: [each[key] for each in series[name]] for key in series[name][0]}
    bins = ("from", "to", "pixels", "abs_rel", "ratio")
    return {
        "bag": str(run.bag.path),
        "depth": run.depth,
        "truth": run.truth,
        "compared": sorted(run.ways),
        "bounds": [run.selection.min_depth, run.selection.max_depth],
        "left_out": {kind: {"images": count, "first": text} for kind, (text, count) in run.pairs.left_out.items()},
        "damage": run.bag.damage,
        **asdict(summary),
        "by_distance": [dict(zip(bins, each)) for each in summary.by_distance],
        "per_frame": series,
    }


def _strict(value: object) -> object:
    """JSON knows neither NaN nor infinity: null."""
    if isinstance(value, dict):
        return {key: _strict(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print(run: Comparison, summary: Summary, left_out: str) -> None:
    scores, drift = run.evaluation.scores, summary.drift
    print(f"depth  {run.depth}\ntruth  {run.truth}, {' and '.join(sorted(run.ways))}")
    if run.others:
        print(f"       (--truth could also be {', '.join(run.others)})")
    stamps = [score.stamp_ns for score in scores]
    span = (max(stamps) - min(stamps)) / 1e9
    print(f"{summary.frames} frames over {span:.1f} s, {summary.pixels} pixels")
    if left_out:
        print(f"left out: {left_out}")
    print("\n" + " " * 22 + "".join(f"{name:>9}" for name in _NAMES))
    rows = {"as it is": summary.errors, f"times {summary.scale:.3f}": summary.scaled, "each frame's scale": summary.shape}
    for name, errors in rows.items():
        print(f"{name:22}" + "".join(f"{value:9.4f}" for value in astuple(errors)))
    print(f"\nbias          {summary.bias:+.4f}: depth is {math.exp(summary.bias):.3f} of the truth, in the median")
    print(f"coverage      {summary.coverage:.1%} of the pixels with truth have depth")
    if math.isfinite(drift.slope_per_minute):  # several frames
        print(f"scale         {drift.median:.4f} +- {drift.std:.4f}, drift {drift.slope_per_minute:+.4f} per minute")
        print(f"flicker       {summary.flicker:.2%} of scale, frame to frame; {summary.change:.2%} of a pixel, motion included")
    print(f"\n{'metres':>12}{'AbsRel':>10}{'of truth':>10}{'pixels':>12}")
    for low, high, pixels, abs_rel, ratio in summary.by_distance:
        if pixels:
            name = f"{low:g} to {high:g}" if math.isfinite(high) else f"over {low:g}"
            print(f"{name:>12}{abs_rel:10.4f}{ratio:10.4f}{pixels:12}")


if __name__ == "__main__":
    sys.exit(main())
