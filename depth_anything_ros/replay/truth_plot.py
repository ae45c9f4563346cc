# SPDX-License-Identifier: Apache-2.0
"""A comparison with a depth sensor as a picture: scale and error over time, error by distance, and one frame."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure  # without pyplot there is no window and nothing to close

from .evaluation import FrameScore, Summary
from .truth import Comparison


def draw(run: Comparison, summary: Summary, file: Path) -> None:
    """Write a PNG: scale and error over time, error by distance, and one frame as depth, truth and ratio."""
    figure = Figure((14, 8), layout="constrained")
    figure.suptitle(f"depth  {run.depth}     truth  {run.truth}     {summary.frames} frames", fontsize=11)
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.05))
    _draw_series(above, [score for score in run.evaluation.scores if score.pixels], summary)
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


def _draw_series(figure, scores: list[FrameScore], summary: Summary) -> None:
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
