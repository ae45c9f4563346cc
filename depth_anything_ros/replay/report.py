# SPDX-License-Identifier: Apache-2.0
"""One html file on the depth of a bag: what came when, what was left out, how depth and scale behave over time.

It measures what can be measured without ground truth. Whether depth is right is the matter of `depth_eval`.
"""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import cv2
import numpy as np

from ..outputs import ColorSettings
from .bag_input import BagInput
from .behaviour import SCALE, Behaviour, events
from .look import Painter, Pair, Shots, fitted
from .messages import BagError, Recorded
from .plots import depth_plot, flicker_plot, html_image, scale_plot, spacing_plot

_METRES = ColorSettings()
_MOST_LISTED = 100
_FORMULA = (
    "Flicker of two consecutive depth images d<sub>t-1</sub>, d<sub>t</sub> at most 0.5 s apart, over the pixels valid "
    "in both, with r = ln(d<sub>t</sub> / d<sub>t-1</sub>): <b>total</b> = median |r|; <b>local</b> = median |r - median(r)|, "
    "what is left when a jump of the whole image's scale is taken out. 0.01 is 1 % from image to image. What moves, the camera "
    "included, counts, too: compare recordings of the same scene, or the same recording with other parameters."
)
_OF_INVERSE = " Here d is inverse depth, whose scale and shift a relative network chooses anew for each image."
_STYLE = """body{font:15px/1.45 system-ui,sans-serif;color:#222;max-width:1000px;margin:24px auto;padding:0 16px}
h1{font-size:26px}h2{font-size:20px;margin-top:36px;border-bottom:1px solid #ccc}h3{font-size:16px;margin:22px 0 4px}
table{border-collapse:collapse;margin:8px 0}th,td{text-align:left;padding:3px 14px 3px 0;border-bottom:1px solid #eee;
vertical-align:top;font-weight:normal;overflow-wrap:anywhere}th{color:#666;white-space:nowrap}img{max-width:100%}
.thumbs{display:flex;flex-wrap:wrap;gap:12px}figure{margin:0}figcaption,p{color:#555;font-size:13px}.bad{color:#c23030}"""


def write_report(
    images: BagInput,
    depths: BagInput,
    pairs: Sequence[Pair],
    path: Path,
    summary: Mapping[str, str],
    color: ColorSettings = _METRES,
) -> None:
    """Write one html file that needs nothing else. Memory does not grow with the bag but for some numbers per image.

    Args:
        images, depths: bags of the images and of the depths; may be the same.
        path: what is there is replaced when the report is complete.
        summary: what to say first: model, licence, parameters, damage.
        color: of the pictures' metres.

    Raises:
        BagError: a topic is not what it is said to be, or the file cannot be written.
    """
    path = Path(path)
    cameras = {pair: Behaviour(pair, Painter(pair, color), images) for pair in pairs}
    topics = {pair.scale for pair in pairs if pair.scale in depths.topics and depths.topics[pair.scale].type == SCALE}

    def add_scale(recorded: Recorded) -> None:
        for pair, camera in cameras.items():
            if pair.scale == recorded.topic:
                camera.add_scale(recorded)

    shots = Shots(
        (images, depths),
        list(cameras),
        lambda pair, recorded: cameras[pair].image(recorded),
        lambda pair, recorded: cameras[pair].depth(recorded),
        dict.fromkeys(topics, add_scale),
    )
    for shot in shots:
        cameras[shot.pair].add(shot)
    problems = [*images.damage, *(line for line in depths.damage if line not in images.damage)]
    problems += [f"{text} ({count} times)" for text, count in shots.problems.items()]
    parts = [f"<h1>Depth of {escape(depths.path.name)}</h1>", _table(summary)]
    if problems:
        parts.append(
            "<h3>What could not be read</h3><ul class=bad>" + "".join(f"<li>{escape(it)}" for it in problems) + "</ul>"
        )
    parts += [_section(camera, shots.strays[pair]) for pair, camera in cameras.items()]
    title = f"<title>Depth of {escape(depths.path.name)}</title><style>{_STYLE}</style>"
    page = (
        f"<!DOCTYPE html>\n<html lang=en><head><meta charset=utf-8>{title}</head><body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(page, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True) if path.parent.is_dir() else None
        raise BagError(f"the report '{path}' cannot be written: {error.strerror or error}") from error


def _table(rows: Mapping[str, str]) -> str:
    return "<table>" + "".join(f"<tr><th>{escape(str(k))}<td>{escape(str(v))}" for k, v in rows.items()) + "</table>"


def _section(camera: Behaviour, strays: int) -> str:
    """All of one camera."""
    stamps = np.asarray(camera.stamps, np.int64)
    start_ns = int(stamps[0]) if stamps.size else int(camera.depths["stamp"][0]) if camera.depths["stamp"] else 0
    median, found = events(stamps)
    parts = [f"<h2>{escape(camera.pair.name)}</h2>", _table(_numbers(camera, strays, median, found))]
    if camera.thumbnails:
        parts.append(_thumbnails(camera, start_ns))
    if found:
        parts.append(_events(stamps, found))
    if stamps.size > 1:
        parts += ["<h3>Spacing of images</h3>", spacing_plot(stamps, median, found)]
    if camera.depths["stamp"]:
        what = "Inverse depth (no unit)" if camera.pair.relative else "Depth"
        parts += [f"<h3>{what} over time</h3>", depth_plot(camera, start_ns)]
    if camera.scale["stamp"]:
        parts += [
            "<h3>Scale</h3><p>1 / metres = a &middot; inverse + b, by what is on depth/scale.</p>",
            scale_plot(camera, start_ns),
        ]
    if camera.flicker["stamp"]:
        parts += [f"<h3>Flicker</h3><p>{_FORMULA}{_OF_INVERSE * camera.pair.relative}</p>", flicker_plot(camera, start_ns)]
    return "\n".join(parts)


def _numbers(camera: Behaviour, strays: int, median: float, found: list[tuple[str, int, float]]) -> dict[str, str]:
    pair, count = camera.pair, len(camera.stamps)
    kinds = Counter(what for what, _, _ in found)
    rows = {
        "image topic": pair.image,
        "depth topic": pair.depth + (" (relative)" if pair.relative else ""),
        "images": str(count),
        "with depth": f"{camera.with_depth}" + (f" ({camera.with_depth / count:.1%})" if count else ""),
        "without depth": str(count - camera.with_depth),
    }
    if strays:
        rows["depth without image"] = str(strays)
    if count > 1:
        rows["duration"] = f"{(max(camera.stamps) - min(camera.stamps)) / 1e9:.3f} s"
        rows["rate"] = (
            f"{1 / median:.2f} Hz (median spacing {1000 * median:.1f} ms)"
            if median > 0
            else "unknown: no stamp follows another"
        )
        for what, label in (
            ("gap", "gaps"),
            ("stamp repeats", "stamps that repeat"),
            ("stamp goes back", "stamps that go back"),
        ):
            rows[label] = str(kinds[what])
    if camera.sizes:
        unit = "" if pair.relative else " m"
        low, middle, high = (_median(camera.depths[name]) for name in ("p5", "median", "p95"))
        invalid = np.asarray(camera.depths["invalid"])
        rows["depth images"] = ", ".join(f"{size}: {number}" for size, number in camera.sizes.items())
        rows["inverse depth" if pair.relative else "depth"] = (
            f"median {middle:.3g}{unit}, 5 % below {low:.3g}{unit}, 5 % above {high:.3g}{unit} (medians over time)"
            if np.isfinite(middle)
            else "no valid pixel"
        )
        rows["invalid pixels"] = f"{invalid.mean():.1%} in the mean, {invalid.max():.1%} at most"
        if (invalid == 1).any():
            rows["depth images without a valid pixel"] = str(int((invalid == 1).sum()))
    if camera.flicker["stamp"]:
        rows["flicker"] = (
            f"total {_median(camera.flicker['total']):.4f}, local {_median(camera.flicker['local']):.4f} (medians over time)"
        )
    if camera.scale["stamp"]:
        valid = np.asarray(camera.scale["valid"]) > 0
        a = np.asarray(camera.scale["a"])[valid]
        rows["scale"] = f"valid in {valid.mean():.1%} of {valid.size} messages" + (
            f", a from {a.min():.4g} to {a.max():.4g}, median {np.median(a):.4g}" if a.size else ""
        )
    return rows


def _events(stamps: np.ndarray, found: list[tuple[str, int, float]]) -> str:
    rows = "".join(
        f"<tr><td>{what}<td>{(before - stamps[0]) / 1e9:+.3f} s<td>{before / 1e9:.3f} s<td>{spacing:+.3f} s"
        for what, before, spacing in ((what, stamps[index - 1], spacing) for what, index, spacing in found[:_MOST_LISTED])
    )
    more = f"<p>and {len(found) - _MOST_LISTED} more</p>" if len(found) > _MOST_LISTED else ""
    head = "<tr><th>what<th>after (since the first image)<th>after (stamp)<th>to the next image"
    return f"<h3>Gaps and stamps out of order</h3><table>{head}{rows}</table>{more}"


def _thumbnails(camera: Behaviour, start_ns: int) -> str:
    figures = []
    for stamp_ns, image, depth in camera.thumbnails:
        picture = np.zeros((image.shape[0], 2 * image.shape[1], 3), np.uint8)
        picture[:, : image.shape[1]] = image
        if depth is not None:
            depth = fitted(depth, image.shape[1], image.shape[0])
            picture[: depth.shape[0], image.shape[1] : image.shape[1] + depth.shape[1]] = depth
        when = f"{(stamp_ns - start_ns) / 1e9:+.3f} s" + ("" if depth is not None else ", no depth")
        figures.append(f"<figure>{_inline('.jpg', picture, when)}<figcaption>{when}</figcaption></figure>")
    first, last = map(escape, camera.painter.ends)
    legend = f"<p>{first} {_inline('.png', camera.painter.bar(200, 10), 'colours')} {last}; black: invalid</p>"
    return f"<h3>Camera and depth</h3>{legend}<div class=thumbs>{''.join(figures)}</div>"


def _inline(kind: str, picture: np.ndarray, text: str) -> str:
    """An html image that holds its own data; (h, w, 3) uint8 BGR."""
    return html_image("jpeg" if kind == ".jpg" else "png", cv2.imencode(kind, picture)[1].tobytes(), text)


def _median(values: array) -> float:
    values = np.asarray(values)
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else float("nan")
