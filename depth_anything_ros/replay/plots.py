# SPDX-License-Identifier: Apache-2.0
"""The plots of a report: how a camera's images, depth and scale behave over time. Each is an html image with its own data."""

from __future__ import annotations

import base64
import io
from array import array
from html import escape

import numpy as np
from matplotlib.figure import Figure

from .behaviour import GAP, Behaviour, events

_BLUE, _ORANGE, _GREY, _RED = "#2563a8", "#d9822b", "#888888", "#c23030"
_STILL = 0.5  # seconds without values, over which no line is drawn


def spacing_plot(stamps: np.ndarray, median: float, found: list[tuple[str, int, float]]) -> str:
    """Time from image to image; stamps, (N,) int64 nanoseconds with N > 1, and what `events` says of them."""
    figure, (axis,) = _axes(2.0)
    times, spacing = (stamps - stamps[0])[1:] / 1e9, np.diff(stamps) / 1e6
    if median > 0:
        axis.axhline(1000 * median, color=_GREY, linewidth=1, label="median")
        axis.axhline(GAP * 1000 * median, color=_RED, linewidth=0.8, linestyle=":", label=f"{GAP:g} times the median")
        axis.set_ylim(min(0, 1.1 * float(spacing.min())), 1.1 * max(GAP * 1000 * median, float(spacing.max())))
        _legend(axis)
    axis.plot(times, spacing, ".", color=_BLUE, markersize=4)
    wrong = [index - 1 for _, index, _ in found]
    axis.plot(times[wrong], spacing[wrong], "o", color=_RED, markersize=6, markerfacecolor="none")
    axis.set_ylabel("milliseconds")
    return _plotted(figure, "spacing of images over time")


def depth_plot(camera: Behaviour, start_ns: int) -> str:
    """Median and percentiles of depth, and below the share of invalid pixels; stamps are counted from `start_ns`."""
    figure, (depth, invalid) = _axes(2.2, 0.9)
    times, values = _series(camera.depths, start_ns)
    depth.fill_between(times, values["p5"], values["p95"], color=_BLUE, alpha=0.18, linewidth=0, label="5 % to 95 %")
    depth.plot(times, values["median"], color=_BLUE, label="median", **_style(len(times)))
    depth.set_ylabel("no unit" if camera.pair.relative else "metres")
    _legend(depth)
    invalid.plot(times, 100 * values["invalid"], color=_ORANGE, **_style(len(times)))
    invalid.set_ylim(0, max(1.0, 110 * max(camera.depths["invalid"])))
    invalid.set_ylabel("% invalid")
    return _plotted(figure, "depth over time")


def scale_plot(camera: Behaviour, start_ns: int) -> str:
    """The scale's a where it is valid, and marks where it is not."""
    figure, (axis,) = _axes(1.8)
    times, values = _series(camera.scale, start_ns)
    axis.plot(times, np.where(values["valid"] > 0, values["a"], np.nan), color=_BLUE, label="a", **_style(len(times)))
    wrong = times[values["valid"] == 0]
    if wrong.size:
        bottom = axis.get_xaxis_transform()
        axis.plot(wrong, np.zeros(wrong.size), "|", color=_RED, transform=bottom, markersize=14, label="not valid")
    axis.set_ylabel("a")
    _legend(axis)
    return _plotted(figure, "scale over time")


def flicker_plot(camera: Behaviour, start_ns: int) -> str:
    """Both kinds of flicker: see `Behaviour.add_flicker`."""
    figure, (axis,) = _axes(1.8)
    times, values = _series(camera.flicker, start_ns)
    axis.plot(times, values["total"], color=_ORANGE, label="total", **_style(len(times)))
    axis.plot(times, values["local"], color=_BLUE, label="local", **_style(len(times)))
    axis.set_ylim(0, max(0.01, 1.1 * max(camera.flicker["total"]), 1.1 * max(camera.flicker["local"])))
    axis.set_ylabel("flicker")
    _legend(axis)
    return _plotted(figure, "flicker over time")


def html_image(kind: str, data: bytes, text: str) -> str:
    """An img element that holds its own data: an encoded png or jpeg."""
    return f'<img alt="{escape(text)}" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'


def _axes(*heights: float) -> tuple[Figure, list]:
    """A figure of plots below each other, over the same time."""
    figure = Figure(figsize=(9, 0.6 + sum(heights)), layout="constrained")
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for each in axes:
        each.grid(color="#e4e4e4", linewidth=0.6)
        each.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("seconds since the first image")
    return figure, list(axes)


def _plotted(figure: Figure, text: str) -> str:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=120)
    return html_image("png", out.getvalue(), text)


def _series(table: dict[str, array], start_ns: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Seconds since `start_ns`, and the columns; NaN in between where lines would lead over a gap, or back."""
    columns = {name: np.asarray(values) for name, values in table.items()}
    median, _ = events(columns["stamp"])
    spacing = np.diff(columns["stamp"]) / 1e9
    breaks = 1 + np.flatnonzero((spacing < 0) | (spacing > max(_STILL, GAP * np.nan_to_num(median))))
    columns = {name: np.insert(values, breaks, np.nan) for name, values in columns.items()}
    return (columns.pop("stamp") - start_ns) / 1e9, columns


def _legend(axis) -> None:
    """Above the plot, where it hides nothing."""
    axis.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 0.98), ncol=2, borderaxespad=0)


def _style(count: int) -> dict:
    """Few values are seen one by one."""
    return {"marker": "." if count <= 200 else "", "markersize": 4, "linewidth": 1.1}
