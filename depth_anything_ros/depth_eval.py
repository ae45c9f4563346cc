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
import re
import sys
from collections import deque
from dataclasses import asdict, astuple
from pathlib import Path

import numpy as np
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, Image, LaserScan, PointCloud2

from .geometry import CameraError
from .messages.camera_info import camera_from_info
from .messages.cdr import MessageError, RawImage, read_header, read_image
from .messages.ranges import cloud_points, depth_points, scan_points
from .replay.bag_input import BagInput
from .replay.evaluation import Evaluation, FrameScore, Summary, truth_image
from .replay.feed import IMAGE, LOOK_AHEAD_NS, CameraTopics, Context, looked_ahead
from .replay.messages import BagError, Recorded
from .stream.logs import SENSOR_TYPES
from .stream.transforms import parse_transforms

_KEPT_NS, _KEPT_BYTES = 10_000_000_000, 128 << 20  # a network that is slow stamps what it says long before it says it
_METRES = {"32FC1": ("f4", 1.0), "16UC1": ("u2", 0.001)}  # REP-118
_NO_TRUTH = ("relative", "confidence", "disparity", "mask", "label")  # in topics' names
_NAMES = ("AbsRel", "SqRel", "RMSE", "logRMSE", "delta1", "delta2", "delta3")  # as in Errors


def main(args: list[str] | None = None) -> int:
    """Print the figures; write them as JSON and as a picture if files are named."""
    options = _parser().parse_args(args)
    try:
        _check(options)
        bag = BagInput(options.bag)
        run = _Run(bag, options)
        run.all()
    except (BagError, OSError, ValueError) as error:
        print(f"depth_eval: {error}", file=sys.stderr)
        return 2
    summary = run.evaluation.summary()
    for text in (*bag.damage, *sorted(run.context.problems)):
        print(f"depth_eval: {text}", file=sys.stderr)
    left_out = "; ".join(f"{count} depth images: {text}" for text, count in run.left_out.values())
    if not summary.pixels:
        print(f"depth_eval: nothing to compare: {left_out or f'no image on {run.depth} in that time'}", file=sys.stderr)
        return 2
    _print(run, summary, left_out)
    try:
        if options.json:
            options.json.write_text(json.dumps(_strict(_figures(run, summary)), indent=1) + "\n")
        if options.plot:
            _plot(run, summary, options.plot)
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
        try:
            import matplotlib  # noqa: F401
        except ImportError as error:
            raise ValueError("--plot needs matplotlib: pip install matplotlib") from error


def depth_pixels(image: RawImage) -> np.ndarray:
    """(H, W) float32 metres of a depth image, 32FC1 metres or 16UC1 millimetres (REP-118); what is invalid stays as it is.

    Raises:
        MessageError: another encoding, or less data than rows.
    """
    if image.encoding not in _METRES:
        raise MessageError(f"a depth image of encoding '{image.encoding}', expected {' or '.join(_METRES)}")
    kind, unit = _METRES[image.encoding]
    item = np.dtype((">" if image.is_bigendian else "<") + kind)
    row, size = image.width * item.itemsize, image.step * image.height
    if not size or image.step < row or image.data.size < size:
        layout = f"{image.width}x{image.height}, step {image.step}"
        raise MessageError(f"a depth image of {layout}, in {image.data.size} bytes: too few")
    rows = image.data[:size].reshape(image.height, image.step)[:, :row]
    return np.ascontiguousarray(rows).view(item).astype(np.float32) * np.float32(unit)


class _Run:
    """A pass through a bag.

    Attributes:
        depth, truth: topics; others: what could also be the truth.
        left_out: of depth images that were not compared, by kind: the first reason, and how many.
        ways: how images were compared, in words.
    """

    def __init__(self, bag: BagInput, options: argparse.Namespace):
        self.bag, self.options = bag, options
        self.depth = _depth_topic(bag, options.depth)
        self.truth, self.others = _truth_topic(bag, self.depth, options.truth)
        self.evaluation = Evaluation(options.min_depth, options.max_depth)
        self._depth_camera, self._truth_camera = (
            CameraTopics(name, False, name.rsplit("/", 1)[0] + "/camera_info") for name in (self.depth, self.truth)
        )
        cameras = [self._depth_camera, self._truth_camera]
        self.context = Context(bag, cameras, parse_transforms(options.transform))
        self.left_out: dict[str, tuple[str, int]] = {}
        self.ways: set[str] = set()
        self._kind = SENSOR_TYPES[bag.topics[self.truth].type]
        self._kept: deque[tuple[int, bytes]] = deque()
        self._bytes = 0

    def all(self) -> None:
        """Compare all that the options ask for."""
        begin, end = self.bag.start_ns + round(self.options.start * 1e9), 2**62
        if math.isfinite(self.options.end):
            end = self.bag.start_ns + round(self.options.end * 1e9)
        before = max(self.bag.start_ns, begin - _KEPT_NS)
        for recorded in self.bag.messages(0, before, self._said_once()):
            self._keep(recorded)
        topics, number = {self.depth, self.truth, *self.context.topics}, 0
        for recorded in looked_ahead(self.bag.messages(before, end + LOOK_AHEAD_NS, topics), self._keep):
            if recorded.topic == self.depth and begin <= recorded.time_ns < end:
                if number % self.options.every == 0:
                    self._compare(recorded)
                number += 1

    def _said_once(self) -> set[str]:
        """Topics that may have been published only when the recording began."""
        return {name for name in self.context.topics if name.endswith(("tf_static", "camera_info"))}

    def _keep(self, recorded: Recorded) -> None:
        self.context.add(recorded)
        if recorded.topic != self.truth:
            return
        try:
            stamp_ns = read_header(recorded.cdr).stamp_ns
        except MessageError as error:
            self.context.problems.add(f"'{self.truth}': {error}")
            return
        kept = self._kept
        if kept and stamp_ns < kept[-1][0] - 1_000_000_000:  # a bag that begins anew
            kept.clear()
            self._bytes = 0
        kept.append((stamp_ns, recorded.cdr))
        self._bytes += len(recorded.cdr)
        while len(kept) > 1 and (stamp_ns - kept[0][0] > _KEPT_NS or self._bytes > _KEPT_BYTES):
            self._bytes -= len(kept.popleft()[1])

    def _compare(self, recorded: Recorded) -> None:
        try:
            image = read_image(recorded.cdr)
            stamp_ns, depth = image.header.stamp_ns, depth_pixels(image)
            when, cdr = min(self._kept, key=lambda entry: abs(entry[0] - stamp_ns), default=(None, b""))
            if when is None or abs(when - stamp_ns) > self.options.max_offset * 1e9:
                nearest = "there is none" if when is None else f"the nearest is {abs(when - stamp_ns) / 1e9:.3f} s away"
                raise LookupError(f"nothing on '{self.truth}' within {self.options.max_offset:g} s ({nearest})")
            seconds = (recorded.time_ns - self.bag.start_ns) / 1e9
            if self.evaluation.add(stamp_ns, seconds, depth, self._truth_of(image, cdr)) is None:
                raise MessageError(f"nothing of '{self.truth}' lies in the image, within the bounds of depth")
        except (MessageError, CameraError, LookupError) as error:
            kind = re.sub(r"[\d.]+", "#", str(error))
            text, count = self.left_out.get(kind, (str(error), 0))
            self.left_out[kind] = text, count + 1

    def _message(self, cdr: bytes) -> PointCloud2 | LaserScan | Image:
        try:
            return deserialize_message(cdr, self._kind)
        except Exception as error:  # rclpy has its own kinds
            raise MessageError(f"a damaged message on '{self.truth}': {type(error).__name__}") from error

    def _truth_of(self, depth: RawImage, cdr: bytes) -> np.ndarray:
        """(H, W) metres on the depth image's pixels, NaN, Inf or <= 0 where there is none."""
        info = self.context.info_at(self._depth_camera, depth.header.stamp_ns)
        if self._kind is Image:
            image = read_image(cdr)
            other = self.context.info_at(self._truth_camera, image.header.stamp_ns)
            if _shape(image) == _shape(depth) and _same_view(info, other):
                self.ways.add("pixel by pixel")
                return depth_pixels(image)
        if info is None:
            raise CameraError(f"no camera_info on '{self._depth_camera.camera_info}'")
        camera = camera_from_info(info, depth.width, depth.height, rectified=False, frame_id=depth.header.frame_id)
        message = self._message(cdr)
        if self._kind is Image:
            if other is None:
                raise CameraError(f"no camera_info on '{self._truth_camera.camera_info}'")
            points = depth_points(message, other)
        else:
            points = scan_points(message) if self._kind is LaserScan else cloud_points(message)
        target, source = depth.header.frame_id, message.header.frame_id
        if target.lstrip("/") != source.lstrip("/"):
            points = self.context.lookup(target, source, depth.header.stamp_ns).apply(points)
        self.ways.add("its points projected")
        return truth_image(points, camera)


def _shape(image: RawImage) -> tuple[str, int, int]:
    return image.header.frame_id.lstrip("/"), image.width, image.height


def _same_view(info: CameraInfo | None, other: CameraInfo | None) -> bool:
    """Whether two images of one frame and size have the same pixels: to one pixel at the edge; so it is if nothing is said."""
    if info is None or other is None or not info.k[0] or not other.p[0]:
        return True
    turned = abs(info.k[0] / other.p[0] - 1) * info.width / 2 + abs(info.k[2] - other.p[2])
    return turned < 1 and abs(info.k[4] / other.p[5] - 1) * info.height / 2 + abs(info.k[5] - other.p[6]) < 1


def _first_image(bag: BagInput, name: str) -> RawImage | None:
    first = next(bag.messages(topics=[name]), None)
    try:
        return first and read_image(first.cdr)
    except MessageError:
        return None


def _depth_topic(bag: BagInput, said: str) -> str:
    """The topic of our depth.

    Raises:
        BagError: there is none, several, or not one in metres.
    """
    images = sorted(name for name, topic in bag.topics.items() if topic.type == IMAGE)
    relative = [name for name in ([said] if said else images) if name.endswith("/relative")]
    no_metres = "has inverse depth of unknown scale, which has no metres to compare: give depth_bag a metric model or a scale"
    if said:
        if said not in images:
            raise BagError(f"'{said}' is no topic of images in the bag; those are: {', '.join(images) or 'none'}")
        if relative:
            raise BagError(f"'{said}' {no_metres}")
        return said
    found = []
    for name in images:
        if name.endswith("depth/image") and name.rsplit("/", 1)[0] + "/camera_info" in bag.topics:
            first = _first_image(bag, name)
            found += [name] if first and first.encoding == "32FC1" else []
    found = [name for name in found if "depth_anything" in name.split("/")] or found  # drivers, too, use this name: REP-118
    if len(found) > 1:
        raise BagError(f"depth is on several topics, choose one by --depth: {', '.join(found)}")
    if not found and relative:
        raise BagError(f"'{relative[0]}' {no_metres}")
    if not found:
        raise BagError(f"there is no depth/image of 32FC1 with a camera_info beside it: say --depth; {_there(bag)}")
    return found[0]


def _truth_topic(bag: BagInput, depth: str, said: str) -> tuple[str, list[str]]:
    """The sensor's topic, and what else could be it: images of the same size and frame, other images, clouds, scans.

    Raises:
        BagError: there is none, or what was said is none.
    """
    if said:
        kind = bag.topics[said].type if said in bag.topics else ""
        if kind not in SENSOR_TYPES or said == depth:
            what = "is compared with itself" if said == depth else f"is {kind or 'not in the bag'}"
            raise BagError(f"'{said}' {what}, expected another depth image, a cloud or a scan; {_there(bag)}")
        return said, []
    ours, node = depth.rsplit("/", 1)[0] + "/", depth.removesuffix("depth/image")
    first, found = _first_image(bag, depth), []
    for name, topic in sorted(bag.topics.items()):
        if topic.type not in SENSOR_TYPES or name.startswith(ours) or (len(node) > 1 and name.startswith(node)):
            continue
        if topic.type != IMAGE:
            found.append((list(SENSOR_TYPES).index(topic.type) + 2, name))
        elif "depth" in name and "/depth_anything/" not in name and not any(word in name for word in _NO_TRUTH):
            image = _first_image(bag, name)
            if image and image.encoding in _METRES:
                found.append((0 if first and _shape(image) == _shape(first) else 1, name))
    if not found:
        raise BagError(f"no depth sensor was found beside '{depth}': no depth image, cloud or scan; {_there(bag)}")
    names = [name for _, name in sorted(found)]
    return names[0], names[1:]


def _there(bag: BagInput) -> str:
    return "the bag's topics are: " + ", ".join(f"{name} ({topic.type})" for name, topic in sorted(bag.topics.items()))


def _figures(run: _Run, summary: Summary) -> dict:
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
        "bounds": [run.options.min_depth, run.options.max_depth],
        "left_out": {kind: {"images": count, "first": text} for kind, (text, count) in run.left_out.items()},
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


def _print(run: _Run, summary: Summary, left_out: str) -> None:
    scores, drift = run.evaluation.scores, summary.drift
    print(f"depth  {run.depth}\ntruth  {run.truth}, {' and '.join(sorted(run.ways))}")
    if run.others:
        print(f"       (--truth could also be {', '.join(run.others)})")
    span = (scores[-1].stamp_ns - scores[0].stamp_ns) / 1e9
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


def _plot(run: _Run, summary: Summary, file: Path) -> None:
    """Scale and error over time, error by distance, and one frame as depth, truth and ratio."""
    from matplotlib.figure import Figure  # an extra; without pyplot there is no window and nothing to close

    figure = Figure((14, 8), layout="constrained")
    figure.suptitle(f"depth  {run.depth}     truth  {run.truth}     {summary.frames} frames", fontsize=11)
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.05))
    _plot_series(above, [score for score in run.evaluation.scores if score.pixels], summary)
    seconds, depth, truth = run.evaluation.example
    with np.errstate(invalid="ignore", divide="ignore"):
        depth = np.where(np.isfinite(depth) & (depth > 0), depth, np.nan)
        ratio = depth / truth
    near, far = np.nanpercentile(truth, (2, 98))
    span = min(max(0.1, float(np.nanpercentile(np.abs(np.log(ratio)), 95))), math.log(4))
    depths, ratios = ("turbo_r", near * 0.95, far * 1.05, "metres"), ("RdBu_r", math.exp(-span), math.exp(span), "")
    shown = ((f"depth at {seconds:.1f} s", depth, depths), ("truth", truth, depths), ("depth / truth", ratio, ratios))
    for axes, (name, values, (colors, low, high, unit)) in zip(below.subplots(1, 3), shown):
        norm = {"norm": "log", "vmin": low, "vmax": high, "cmap": colors}
        known = np.isfinite(values)
        if known.mean() > 0.2:
            image = axes.imshow(values, **norm)
        else:  # a few points, which would be too small to see
            rows, columns = np.nonzero(known)
            size = float(np.clip(4e4 / len(rows), 2, 25))
            image = axes.scatter(columns, rows, size, values[known], linewidths=0, **norm)
            axes.set(xlim=(-0.5, values.shape[1] - 0.5), ylim=(values.shape[0] - 0.5, -0.5), aspect="equal")
        axes.set(title=name, xticks=[], yticks=[], facecolor="0.85")
        ticks = np.geomspace(low, high, 5)
        bar = below.colorbar(image, ax=axes, label=unit, shrink=0.8, location="bottom")
        bar.set_ticks(ticks, labels=[f"{tick:.2f}" for tick in ticks])
        bar.minorticks_off()
    figure.savefig(file, dpi=110)


def _plot_series(figure, scores: list[FrameScore], summary: Summary) -> None:
    scale, error, distance = figure.subplots(1, 3)
    times, drift = [score.seconds for score in scores], summary.drift
    line = {"markersize": 3, "linewidth": 0.8}
    scale.plot(times, [score.ratio for score in scores], ".-", color="tab:blue", **line)
    scale.axhline(1, color="0.4", linewidth=1, linestyle=":")
    scale.axhline(drift.median, color="tab:orange", linewidth=1, label=f"median {drift.median:.3f}, std {drift.std:.3f}")
    if math.isfinite(drift.slope_per_minute):
        middle, ends = np.mean(times), np.array([times[0], times[-1]])  # a least-squares line goes through the means
        trend = np.mean([score.ratio for score in scores]) + drift.slope_per_minute * (ends - middle) / 60
        scale.plot(ends, trend, "--", color="tab:red", linewidth=1, label=f"drift {drift.slope_per_minute:+.3f} per minute")
    scale.set(title="scale: median of depth / truth", xlabel="seconds of the bag")
    scale.ticklabel_format(useOffset=False)
    error.plot(times, [score.errors.abs_rel for score in scores], ".-", label="as it is", **line)
    error.plot(times, [score.shape.abs_rel for score in scores], ".-", label="each frame's scale", **line)
    error.set(title="AbsRel", xlabel="seconds of the bag")
    error.set_ylim(0, max(error.get_ylim()[1], 0.01))
    bins = [each for each in summary.by_distance if each[2]]
    bars = distance.bar(range(len(bins)), [each[3] for each in bins], color="tab:green", width=0.7)
    distance.bar_label(bars, [f"{each[2] / summary.pixels:.0%}" for each in bins], fontsize=8, padding=2)
    names = [f"{low:g}-{high:g}" if math.isfinite(high) else f">{low:g}" for low, high, *_ in bins]
    distance.set_xticks(range(len(bins)), names)
    distance.set(title="AbsRel by distance (above: share of pixels)", xlabel="metres of truth")
    distance.margins(y=0.12)
    for axes in (scale, error):
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)


if __name__ == "__main__":
    sys.exit(main())
