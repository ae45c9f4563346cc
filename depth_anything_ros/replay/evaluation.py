# SPDX-License-Identifier: Apache-2.0
"""How good depth is beside a sensor's: figures over all pixels, per frame, by distance, and the scale over time.

A bag may be of any length: of a frame some twenty numbers are kept, and of all pixels a few sums and one histogram, of
ln(depth / truth), from which the median over everything and the figures with the best scale come. Its bins are 0.0002 wide,
and each also sums what fell into it: that median is off by at most as much, every mean by far less.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import astuple, dataclass

import numpy as np

from ..geometry import Camera

DISTANCES = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, math.inf)
"""Edges, in metres of truth, of the bins of the error by distance."""

_WIDTH, _LIMIT = 2e-4, 5.0  # of the histogram's bins; beyond e^5 : 1 depth is wrong by any measure, and the end bins do
_FLICKER_PIXELS = 30000  # of a frame; of more, an even selection


@dataclass(frozen=True)
class Errors:
    """Figures of Eigen, Puhrsch, Fergus: Depth Map Prediction from a Single Image (NeurIPS 2014), Table 1. NaN of no pixels.

    Attributes:
        abs_rel: mean |depth - truth| / truth.
        sq_rel: mean (depth - truth)^2 / truth, metres.
        rmse: root of the mean (depth - truth)^2, metres.
        log_rmse: root of the mean (ln depth - ln truth)^2.
        delta1, delta2, delta3: share of pixels with max(depth / truth, truth / depth) below 1.25, 1.25^2, 1.25^3.
    """

    abs_rel: float
    sq_rel: float
    rmse: float
    log_rmse: float
    delta1: float
    delta2: float
    delta3: float


@dataclass(frozen=True)
class FrameScore:
    """One frame.

    Attributes:
        stamp_ns: of the depth image.
        seconds: from the bag's beginning.
        pixels: compared.
        coverage: share of the pixels with truth that have depth.
        ratio: median of depth / truth.
        errors: of depth as it is.
        shape: errors of depth / ratio: what is wrong besides this frame's scale.
        change: median |ln depth - ln depth before| of the same pixel, without truth; the camera's motion is in it.
    """

    stamp_ns: int
    seconds: float
    pixels: int
    coverage: float
    ratio: float
    errors: Errors
    shape: Errors
    change: float


@dataclass(frozen=True)
class Drift:
    """Of the scale, that is of the frames' `ratio`: median, standard deviation, and least-squares slope per minute."""

    median: float
    std: float
    slope_per_minute: float


@dataclass(frozen=True)
class Summary:
    """All frames together; every pixel counts the same.

    Attributes:
        bias: median of ln(depth / truth).
        scale: what depth is multiplied by to have no bias: exp(-bias), the one best scale of all frames.
        errors: of depth as it is.
        scaled: of depth * scale.
        shape: of each frame's depth by its own scale.
        drift: of the scale over time.
        flicker: median over consecutive frames of |ln ratio - ln ratio before|.
        change: median over frames of their `change`.
        by_distance: (from, to, pixels, abs_rel, geometric mean of depth / truth) for each bin of `DISTANCES`.
    """

    frames: int
    pixels: int
    coverage: float
    bias: float
    scale: float
    errors: Errors
    scaled: Errors
    shape: Errors
    drift: Drift
    flicker: float
    change: float
    by_distance: tuple[tuple[float, float, int, float, float], ...]


def errors_of(depth: np.ndarray, truth: np.ndarray) -> Errors:
    """The figures of (N,) depths beside (N,) truths, both in metres and above 0."""
    if not len(depth):
        return Errors(*[math.nan] * 7)
    ratio, off = depth / truth, depth - truth
    worse = np.maximum(ratio, 1 / ratio)
    squares = np.square(off)
    return Errors(
        float(np.mean(np.abs(off) / truth)),
        float(np.mean(squares / truth)),
        float(np.sqrt(np.mean(squares))),
        float(np.sqrt(np.mean(np.square(np.log(ratio))))),
        *(float(np.mean(worse < 1.25**power)) for power in (1, 2, 3)),
    )


def truth_image(points: np.ndarray, camera: Camera) -> np.ndarray:
    """(height, width) float64 of the depth along z of points (N, 3) in the optical frame, NaN where none is.

    A point goes to the pixel whose centre is nearest to it; of several at one pixel, the nearest to the camera stays.
    """
    pixels, image = camera.project(points), np.full(camera.height * camera.width, np.nan)
    inside = (pixels > -0.5).all(1) & (pixels < (camera.width - 0.5, camera.height - 0.5)).all(1)  # False for NaN
    columns, rows = np.rint(pixels[inside]).astype(np.int64).T
    z = np.asarray(points, np.float64)[inside, 2]
    far_first = np.argsort(-z)  # of several values for one place, the last one stays
    image[(rows * camera.width + columns)[far_first]] = z[far_first]
    return image.reshape(camera.height, camera.width)


class Evaluation:
    """Takes frame after frame; `summary` may be asked at any time.

    Attributes:
        scores: of the frames so far.
        example: (seconds, depth, truth) of the frame with the most pixels compared; None before the first.
    """

    def __init__(self, min_depth: float = 0.1, max_depth: float = math.inf):
        """Only pixels whose truth lies in [min_depth, max_depth] metres count."""
        self._bounds = min_depth, max_depth
        self.scores: list[FrameScore] = []
        self.example: tuple[float, np.ndarray, np.ndarray] | None = None
        self._of_truth, self._most = 0, 0
        bins = round(2 * _LIMIT / _WIDTH)
        self._counts, self._logs = np.zeros(bins), np.zeros(bins)
        self._moments = np.zeros(6)  # sums of d^2, d t, t^2; d^2 / t, d, t
        self._by_distance = np.zeros((3, len(DISTANCES) - 1))  # n, |d - t| / t, ln(d / t)
        self._before: np.ndarray | None = None

    def add(self, stamp_ns: int, seconds: float, depth: np.ndarray, truth: np.ndarray) -> FrameScore | None:
        """The next frame: (H, W) metres, with NaN, Inf or <= 0 where nothing is known; None if there is no truth that counts.

        Args:
            stamp_ns: of the depth image; the drift is by these.
            seconds: from the bag's beginning.
        """
        with np.errstate(invalid="ignore"):
            known = np.isfinite(truth) & (truth > 0) & (truth >= self._bounds[0]) & (truth <= self._bounds[1])
            good = known & np.isfinite(depth) & (depth > 0)
        of_truth = int(known.sum())
        if not of_truth:
            return None
        d, t = depth[good].astype(np.float64), truth[good].astype(np.float64)
        ratio = float(np.median(d / t)) if len(d) else math.nan
        coverage = len(d) / of_truth
        score = FrameScore(
            stamp_ns, seconds, len(d), coverage, ratio, errors_of(d, t), errors_of(d / ratio, t), self._change(depth)
        )
        if len(d) > self._most:
            self._most, self.example = len(d), (seconds, depth.copy(), np.where(known, truth, np.nan))
        self.scores.append(score)
        self._of_truth += of_truth
        self._sum_up(d, t)
        return score

    def _change(self, depth: np.ndarray) -> float:
        stride = max(1, math.ceil(math.sqrt(depth.size / _FLICKER_PIXELS)))
        now = depth[::stride, ::stride].astype(np.float64)
        before, self._before = self._before, now
        if before is None or before.shape != now.shape:
            return math.nan
        with np.errstate(invalid="ignore", divide="ignore"):
            off = np.abs(np.log(now) - np.log(before))
        off = off[np.isfinite(off)]
        return float(np.median(off)) if len(off) else math.nan

    def _sum_up(self, d: np.ndarray, t: np.ndarray) -> None:
        log = np.log(d / t)
        bins = np.clip((log + _LIMIT) / _WIDTH, 0, len(self._counts) - 1).astype(np.int64)
        self._counts += np.bincount(bins, minlength=len(self._counts))
        self._logs += np.bincount(bins, log, len(self._counts))
        self._moments += [values.sum() for values in (d * d, d * t, t * t, d * d / t, d, t)]
        where = np.searchsorted(DISTANCES, t, "right") - 1
        for row, values in enumerate((np.ones_like(d), np.abs(d - t) / t, log)):
            self._by_distance[row] += np.bincount(where, values, len(DISTANCES) - 1)

    def summary(self) -> Summary:
        """The figures of all frames so far; NaN where there is nothing that they could be of."""
        pixels = np.array([score.pixels for score in self.scores])
        compared = [score for score in self.scores if score.pixels]
        bias = self._bias()
        return Summary(
            len(self.scores),
            int(pixels.sum()),
            float(pixels.sum() / self._of_truth) if self._of_truth else math.nan,
            bias,
            math.exp(-bias),
            _together(compared, lambda score: score.errors),
            self._scaled(bias),
            _together(compared, lambda score: score.shape),
            _drift(compared),
            _median(np.abs(np.diff(np.log([score.ratio for score in compared])))),
            _median(np.array([score.change for score in self.scores])),
            self._distances(),
        )

    def _bias(self) -> float:
        count = self._counts.sum()
        if not count:
            return math.nan
        middle = int(np.searchsorted(np.cumsum(self._counts), count / 2))
        return float(self._logs[middle] / self._counts[middle])

    def _scaled(self, bias: float) -> Errors:
        """Errors of depth * exp(-bias): what hangs on depth / truth alone from the histogram, the rest from the sums."""
        filled = self._counts > 0
        share = self._counts[filled] / max(1.0, self._counts.sum())
        log = self._logs[filled] / self._counts[filled] - bias
        if not len(log):
            return Errors(*[math.nan] * 7)
        scale, count = math.exp(-bias), self._counts.sum()
        dd, dt, tt, dd_t, d, t = self._moments / count
        return Errors(
            float(share @ np.abs(np.expm1(log))),
            max(0.0, float(scale * scale * dd_t - 2 * scale * d + t)),
            math.sqrt(max(0.0, float(scale * scale * dd - 2 * scale * dt + tt))),
            math.sqrt(float(share @ np.square(log))),
            *(float(share @ (np.abs(log) < power * math.log(1.25))) for power in (1, 2, 3)),
        )

    def _distances(self) -> tuple[tuple[float, float, int, float, float], ...]:
        rows = zip(DISTANCES, DISTANCES[1:], self._by_distance.T)
        return tuple(
            (low, high, int(n), float(off / n) if n else math.nan, math.exp(log / n) if n else math.nan)
            for low, high, (n, off, log) in rows
        )


def _together(scores: list[FrameScore], which: Callable[[FrameScore], Errors]) -> Errors:
    """Errors over all pixels of frames: means of their means by pixels; of roots, the squares are averaged."""
    if not scores:
        return Errors(*[math.nan] * 7)
    values = np.array([astuple(which(score)) for score in scores])
    values[:, 2:4] = np.square(values[:, 2:4])
    mean = np.average(values, 0, [score.pixels for score in scores])
    mean[2:4] = np.sqrt(mean[2:4])
    return Errors(*mean.tolist())


def _drift(scores: list[FrameScore]) -> Drift:
    ratios = np.array([score.ratio for score in scores])
    minutes = np.array([(score.stamp_ns - scores[0].stamp_ns) / 60e9 for score in scores])
    if not len(ratios):
        return Drift(math.nan, math.nan, math.nan)
    minutes -= minutes.mean()
    spread = float(minutes @ minutes)
    slope = float(minutes @ ratios) / spread if spread else math.nan
    return Drift(float(np.median(ratios)), float(np.std(ratios)), slope)


def _median(values: np.ndarray) -> float:
    """Of those that are not NaN; NaN of none."""
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else math.nan
