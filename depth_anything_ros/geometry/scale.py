# SPDX-License-Identifier: Apache-2.0
"""From a network's inverse depth to metres: 1 / z = a * inverse + b, with a and b from whatever knows some true distances.

One robust fit serves every source: points of a range sensor, the ground below a camera of known height, distances that a
person has measured. Relative networks need a and b (their shift is unknown: Ranftl et al., TPAMI 2022); of metric ones only the
scale is refined, b = 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from .camera import Camera

SOURCES = ("none", "fixed", "sparse", "ground", "focal")
_MAX_POINTS = 3000  # more make a fit slower, not better
_TRIALS = 300  # pairs of points that propose a fit: enough for 2 good ones of 10 to meet with certainty
_NOISE = 0.02  # of a fit: relative differences below are never outliers
_WIDEST = 0.15  # and above always are
_RANGE = 2.0  # times from the nearest to the farthest points, without which a shift is a guess everywhere else
_UNLIKE = 0.3  # of the ground's variance over the points that agree: what they may leave unexplained
_FEW = 20  # points, of which the very nearest and farthest count; of more, the 5th and 95th percentile
_SAME_FOCAL = 0.02
_VETO = 8  # points that are enough to see that a held scale is wrong
_MIN_SHARE = {"sparse": 0.5, "ground": 0.25}  # of points that have to agree


@dataclass(frozen=True)
class ScaleSettings:
    """Where metres come from.

    Attributes:
        source: one of `SOURCES`; none: the metres of a metric network as they are, and none of a relative one.
        a, b: of source fixed; b in 1 / m.
        network: of source fixed: the `Prediction.network` that a and b were measured with.
        focal: of source fixed: the `Camera.focal` that they were measured with; 0: any.
        camera_height: of source ground: metres above it; 0: as the transform to the robot's base frame says.
        min_points: fewer pairs than these are no fit.
        max_residual: a fit whose inliers are off by more than this share (median) is refused.
        smoothing: seconds over which a and b follow new fits.
        hold: seconds for which the last good fit serves without a new one.
        training_focal: of source focal: focal length, in short sides of the image, of the cameras that the network learned on.
    """

    source: str = "none"
    a: float = 1.0
    b: float = 0.0
    network: str = ""
    focal: float = 0.0
    camera_height: float = 0.0
    min_points: int = 30
    max_residual: float = 0.08
    smoothing: float = 0.5
    hold: float = 3.0
    training_focal: float = 0.0


@dataclass(frozen=True)
class Fit:
    """1 / z = a * inverse + b over some pairs.

    Attributes:
        points: how many pairs there were; inliers: how many of them agree.
        residual: median over the inliers of |difference| as a share of the true inverse depth, which is that of depth.
    """

    a: float
    b: float
    points: int
    inliers: int
    residual: float


class FitError(ValueError):
    """Pairs that do not determine a fit; the message says what is missing."""


def fit_inverse_depth(inverse: np.ndarray, truth: np.ndarray, shift: bool, floor: bool = False) -> Fit:
    """The a and b of most pairs, whatever the others say.

    Pairs of points propose fits (all at once; Fischler and Bolles 1981); the best by a truncated quadratic cost (Torr and
    Zisserman 2000) is refined on its inliers by Huber's weights (1964), scaled by their median absolute deviation.
    Differences count relative to the truth, as errors of depth do.

    Args:
        inverse: (N,) what the network said.
        truth: (N,) 1 / metres, all positive.
        shift: whether b is free; else b = 0.
        floor: the truth is a lower bound of what can be there (nothing is below the ground): fits with points beyond it pay.

    Raises:
        FitError: fewer than 2 pairs (1 without shift), too narrow a range for a shift, or nothing that points agree on.
    """
    inverse, truth = np.asarray(inverse, np.float64), np.asarray(truth, np.float64)
    good = np.isfinite(inverse) & np.isfinite(truth) & (truth > 0) & ((inverse > 0) | shift)
    inverse, truth = inverse[good], truth[good]
    total = len(truth)
    if total < 1 + shift:
        raise FitError(f"{total} points, expected {1 + shift} at least")
    if total > _MAX_POINTS:
        chosen = np.random.default_rng(0).choice(total, _MAX_POINTS, replace=False)
        inverse, truth = inverse[chosen], truth[chosen]
    if shift:
        low, high = np.percentile(truth, (0, 100) if total <= _FEW else (5, 95))
        if high < _RANGE * low * (1 - 1e-6):
            raise FitError(
                f"points from {1 / high:.2f} to {1 / low:.2f} m, expected {_RANGE:g} times as far: scale and shift cannot be "
                "told apart"
            )
    a, b = _propose(inverse, truth, shift, floor)
    spread = _WIDEST
    for _ in range(10):
        difference = (a * inverse + b - truth) / truth
        close = np.abs(difference) <= spread
        if close.sum() < 1 + shift:
            raise FitError("no two points agree on a scale")
        sigma = max(1.4826 * float(np.median(np.abs(difference[close]))), _NOISE / 3)
        spread = min(_WIDEST, 3 * sigma)
        weight = np.minimum(1, 1.345 * sigma / np.maximum(np.abs(difference), 1e-12)) * (np.abs(difference) <= spread)
        a, b = _least_squares(inverse, truth, weight / truth**2, shift)
    difference = np.abs(a * inverse + b - truth) / truth
    if not shift and not floor and np.median(np.abs(inverse - truth) / truth) < np.median(difference):
        a, difference, spread = 1.0, np.abs(inverse - truth) / truth, _WIDEST  # metres that are better as they are stay so
    close = difference <= spread
    if a <= 0 or not math.isfinite(a + b) or not close.any():
        raise FitError("the points contradict the network: what is near for them is far for it")
    if floor:  # a wall at one distance agrees with the ground somewhere, but not with how the ground recedes
        wanted = np.log(truth[close])
        rest = np.log(np.maximum(a * inverse[close] + b, 1e-9)) - wanted
        if rest.var() > _UNLIKE * wanted.var():
            raise FitError("what is seen does not recede as the ground does")
    inliers = round(float(close.mean()) * total)
    return Fit(float(a), float(b), total, inliers, float(np.median(difference[close])))


def check_fit(fit: Fit, settings: ScaleSettings) -> None:
    """Raise FitError unless enough points agree, and closely enough."""
    share = _MIN_SHARE[settings.source]
    if fit.inliers < max(settings.min_points, share * fit.points):
        raise FitError(f"{fit.inliers} of {fit.points} points agree, expected {share:.0%} and {settings.min_points} at least")
    if fit.residual > settings.max_residual:
        raise FitError(f"the points are off by {fit.residual:.0%}, expected {settings.max_residual:.0%} at most")


def _propose(inverse: np.ndarray, truth: np.ndarray, shift: bool, floor: bool) -> tuple[float, float]:
    """The best of many fits through two points each (one without shift)."""
    random = np.random.default_rng(0)
    first = random.integers(len(truth), size=_TRIALS)
    if shift:
        # Partners far away in depth: two points at one distance propose nothing of use.
        order = np.argsort(truth)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        second = order[(rank[first] + random.integers(len(order) // 4, 1 + 3 * len(order) // 4, _TRIALS)) % len(order)]
        run = inverse[second] - inverse[first]
        with np.errstate(divide="ignore", invalid="ignore"):
            a = (truth[second] - truth[first]) / run
            b = truth[first] - a * inverse[first]
        sound = np.isfinite(a) & (a > 0)
        if not sound.any():
            raise FitError("the points contradict the network: what is near for them is far for it")
        a, b = a[sound], b[sound]
    else:
        a = truth[first] / inverse[first]
        b = np.zeros_like(a)
    sample = random.choice(len(truth), min(len(truth), 600), replace=False)
    difference = (a[:, None] * inverse[sample] + b[:, None] - truth[sample]) / truth[sample]
    cost = np.minimum(difference**2, (_WIDEST / 2) ** 2)
    if floor:
        cost += (difference < -_WIDEST / 2) * (_WIDEST / 2) ** 2
    best = int(np.argmin(cost.mean(1)))
    return float(a[best]), float(b[best])


def _least_squares(inverse: np.ndarray, truth: np.ndarray, weight: np.ndarray, shift: bool) -> tuple[float, float]:
    if not shift:
        return float((weight * inverse * truth).sum() / (weight * inverse**2).sum()), 0.0
    total = weight.sum()
    mean, goal = (weight * inverse).sum() / total, (weight * truth).sum() / total
    variance = (weight * (inverse - mean) ** 2).sum()
    if variance <= 1e-12 * total * max(mean**2, 1e-12):
        raise FitError("the network sees one distance only: scale and shift cannot be told apart")
    a = (weight * (inverse - mean) * (truth - goal)).sum() / variance
    return float(a), float(goal - a * mean)


@dataclass(frozen=True)
class Scale:
    """What is in force for a frame, and how good it is.

    Attributes:
        valid: whether a and b may be used.
        fit: the newest accepted fit, its residual that of a and b; None for sources that fit nothing, or before the first.
        age: seconds from that fit to the frame.
        problem: why the newest frame brought no new fit; empty if it did.
    """

    source: str
    valid: bool
    a: float = 1.0
    b: float = 0.0
    fit: Fit | None = None
    age: float = 0.0
    problem: str = ""

    def report(self) -> dict[str, str]:
        """Name -> value, for a person and for a program."""
        rows = {"source": self.source, "valid": str(self.valid).lower(), "a": f"{self.a:.9g}", "b": f"{self.b:.9g}"}
        if self.fit:
            fit = self.fit
            rows |= {"points": str(fit.points), "inliers": str(fit.inliers), "residual": f"{fit.residual:.4f}"}
            rows["age"] = f"{self.age:.3f}"
        return rows


@dataclass
class ScaleEstimator:
    """Follows a and b from frame to frame: smooths, holds, refuses. One per camera; frames in order."""

    settings: ScaleSettings
    _fit: Fit | None = None
    _a: float = 1.0
    _b: float = 0.0
    _stamp_ns: int = 0

    def reset(self) -> None:
        """Forget every fit: nothing is valid until the next."""
        self._fit = None

    def fixed(self, network: str, camera: Camera | None) -> Scale:
        """The scale of a calibration, if it was made with this network and with such a camera."""
        settings, problem = self.settings, ""
        if settings.network != network:
            problem = f"a and b were measured with network '{settings.network}', but this is '{network}'"
        elif settings.focal and (camera is None or abs(camera.focal / settings.focal - 1) > _SAME_FOCAL):
            now = f"this one's is {camera.focal:.3f}" if camera else "this one has no calibration"
            problem = f"a and b were measured with a camera of focal length {settings.focal:.3f} short sides, but {now}"
        return Scale("fixed", not problem, settings.a, settings.b, problem=problem)

    def focal(self, camera: Camera | None) -> Scale:
        """The scale of a camera that sees things larger or smaller than those that a metric network learned on.

        Depth goes with the focal length in pixels of what the network is given (Metric3D's canonical camera: Yin et al., ICCV
        2023), so metres are multiplied by the camera's over the training's.
        """
        if camera is None:
            return Scale("focal", False, problem="no calibration")
        return Scale("focal", True, self.settings.training_focal / camera.focal)

    def update(self, pairs: tuple[np.ndarray, np.ndarray] | None, shift: bool, stamp_ns: int, problem: str = "") -> Scale:
        """The scale for a frame.

        Args:
            pairs: (N,) inverse and (N,) truth as in `fit_inverse_depth`; None: the source had nothing for this frame.
            shift: whether the network is relative.
            stamp_ns: of the frame; frames that go back in time begin anew.
            problem: why there are no pairs.
        """
        settings = self.settings
        if self._fit and stamp_ns < self._stamp_ns:
            self.reset()
        if pairs is not None:
            try:
                self._accept(self._checked(*pairs, shift), pairs, stamp_ns)
            except FitError as error:
                problem = str(error)
                if self._fit and self._contradicted(*pairs):
                    self.reset()
        if self._fit is None:
            return Scale(settings.source, False, problem=problem or "no fit yet")
        age = (stamp_ns - self._stamp_ns) / 1e9
        scale = Scale(settings.source, age <= settings.hold, self._a, self._b, self._fit, age, problem)
        if not scale.valid:
            self.reset()
            scale = replace(scale, problem=f"no good fit for {age:.1f} s: {problem}")
        return scale

    def _checked(self, inverse: np.ndarray, truth: np.ndarray, shift: bool) -> Fit:
        settings = self.settings
        if len(truth) < settings.min_points:
            raise FitError(f"{len(truth)} points in view, expected {settings.min_points} at least")
        fit = fit_inverse_depth(inverse, truth, shift, floor=settings.source == "ground")
        check_fit(fit, settings)
        return fit

    def _contradicted(self, inverse: np.ndarray, truth: np.ndarray) -> bool:
        """Whether points that are too few, or too alike, for a fit are enough to see that the held one is wrong."""
        if len(truth) < _VETO:
            return False
        off = (self._a * inverse + self._b - truth) / truth
        if self.settings.source == "ground":  # an obstacle before the ground contradicts nothing, a point below it does
            off = np.minimum(off, 0)
        return float(np.median(np.abs(off))) > 2 * self.settings.max_residual

    def _accept(self, fit: Fit, pairs: tuple[np.ndarray, np.ndarray], stamp_ns: int) -> None:
        """Follow the fit; at once where a network has taken another scale, which no average of old and new is true of."""
        inverse, truth = pairs
        elapsed, share = (stamp_ns - self._stamp_ns) / 1e9, 1.0
        if self._fit and self.settings.smoothing > 0 and elapsed > 0:
            share = 1 - math.exp(-elapsed / self.settings.smoothing)
        a, b = self._a + share * (fit.a - self._a), self._b + share * (fit.b - self._b)
        close = np.abs(fit.a * inverse + fit.b - truth) <= _WIDEST * truth
        residual = float(np.median(np.abs(a * inverse + b - truth)[close] / truth[close])) if close.any() else fit.residual
        if residual > max(1.5 * fit.residual, _NOISE / 2):
            a, b, residual = fit.a, fit.b, fit.residual
        self._a, self._b = a, b
        self._fit, self._stamp_ns = replace(fit, residual=residual), stamp_ns
