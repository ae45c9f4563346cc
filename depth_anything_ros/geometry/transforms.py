# SPDX-License-Identifier: Apache-2.0
"""Rigid motions between frames, and a tree of them, fixed or changing with time, that is asked by one `lookup`."""

from __future__ import annotations

import bisect
import math
import threading
from dataclasses import dataclass

import numpy as np


class TransformError(LookupError):
    """No transform between two frames at that time; the message says which, and where the known frames end."""


@dataclass(frozen=True, eq=False)
class Transform:
    """Takes points of a source frame into a target frame: `rotation` (3, 3) and `translation` (3,) in metres, float64."""

    rotation: np.ndarray
    translation: np.ndarray

    @staticmethod
    def identity() -> Transform:
        """Takes every point to itself."""
        return Transform(np.eye(3), np.zeros(3))

    @staticmethod
    def from_rpy(x: float, y: float, z: float, roll: float, pitch: float, yaw: float) -> Transform:
        """From metres and radians about fixed x, y, z, in this order (REP-103; as in URDF and static_transform_publisher)."""
        (sr, sp, sy), (cr, cp, cy) = (np.sin([roll, pitch, yaw]), np.cos([roll, pitch, yaw]))
        rotation = [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
        return Transform(np.array(rotation), np.array([x, y, z], np.float64))

    @staticmethod
    def from_quaternion(translation, quaternion) -> Transform:
        """From (x, y, z) in metres and a quaternion (x, y, z, w) of any length but 0 (geometry_msgs/Transform).

        Raises:
            TransformError: NaN, or a quaternion of length 0.
        """
        values = np.array([*translation, *quaternion], np.float64)
        length = float(np.linalg.norm(values[3:]))
        if not np.isfinite(values).all() or length < 1e-6:
            raise TransformError(f"a transform with translation {values[:3]} and quaternion {values[3:]}, which is no rotation")
        x, y, z, w = values[3:] / length
        rotation = [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
        return Transform(np.array(rotation), values[:3])

    def __matmul__(self, inner: Transform) -> Transform:
        """`self` after `inner`: (a <- b) @ (b <- c) is (a <- c)."""
        return Transform(self.rotation @ inner.rotation, self.rotation @ inner.translation + self.translation)

    def inverse(self) -> Transform:
        """From the target back to the source."""
        return Transform(self.rotation.T, -self.rotation.T @ self.translation)

    def apply(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) points of the source frame in the target frame."""
        return points @ self.rotation.T + self.translation

    def differs(self, other: Transform, metres: float, radians: float) -> bool:
        """Whether another transform is farther from this one than that."""
        turned = (np.trace(self.rotation.T @ other.rotation) - 1) / 2
        return bool(
            np.linalg.norm(self.translation - other.translation) > metres or math.acos(np.clip(turned, -1, 1)) > radians
        )

    def towards(self, other: Transform, share: float) -> Transform:
        """This one moved `share` of the way to another: straight, and about one axis at constant speed (slerp)."""
        turn = self.rotation.T @ other.rotation
        angle = math.acos(np.clip((np.trace(turn) - 1) / 2, -1, 1))
        if angle < 1e-9:
            rotation = self.rotation
        else:
            axis = _axis(turn, angle)
            cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
            part = share * angle
            rotation = self.rotation @ (np.eye(3) + math.sin(part) * cross + (1 - math.cos(part)) * cross @ cross)
        return Transform(rotation, self.translation + share * (other.translation - self.translation))


def _axis(turn: np.ndarray, angle: float) -> np.ndarray:
    """The unit axis of a rotation matrix by `angle` > 0; also for half a turn, where the matrix is symmetric."""
    skew = np.array([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]])
    if math.sin(angle) > 1e-6:
        return skew / (2 * math.sin(angle))
    column = (turn + np.eye(3))[:, int(np.argmax(np.diag(turn)))]
    return column / np.linalg.norm(column)


class TransformTree:
    """Frames that hang on each other. Safe to fill and to ask from different threads.

    Args:
        history: seconds for which transforms that change are kept.
    """

    def __init__(self, history: float = 10.0):
        self._history = int(history * 1e9)
        self._parents: dict[str, str] = {}
        self._fixed: dict[str, Transform] = {}
        self._moving: dict[str, list[tuple[int, Transform]]] = {}
        self._lock = threading.Lock()

    def copy(self) -> TransformTree:
        """Another tree with the same transforms, to which more can be added."""
        other = TransformTree(self._history / 1e9)
        with self._lock:
            other._parents, other._fixed = dict(self._parents), dict(self._fixed)
            other._moving = {child: list(times) for child, times in self._moving.items()}
        return other

    def knows(self, child: str) -> bool:
        """Whether a frame hangs on another."""
        return child in self._parents

    def add(self, parent: str, child: str, transform: Transform, stamp_ns: int | None = None) -> None:
        """The transform (parent <- child): the child's pose in its parent; without a stamp it holds for ever.

        Raises:
            TransformError: the two would be their own ancestors.
        """
        with self._lock:
            if parent == child or child in self._ancestors(parent):
                raise TransformError(f"frames '{parent}' and '{child}' would hang on each other in a circle")
            if self._parents.get(child) != parent:  # what it hung on before is no past of this
                self._moving.pop(child, None)
            self._parents[child] = parent
            if stamp_ns is None:
                self._fixed[child] = transform
                return
            self._fixed.pop(child, None)
            times = self._moving.setdefault(child, [])
            if times and stamp_ns < times[-1][0] - self._history:  # a bag that begins anew
                times.clear()
            bisect.insort(times, (stamp_ns, transform), key=lambda entry: entry[0])
            while times[0][0] < times[-1][0] - self._history:
                times.pop(0)

    def lookup(self, target: str, source: str, stamp_ns: int) -> Transform:
        """(target <- source) at a time in nanoseconds, interpolated between the transforms before and after it.

        Raises:
            TransformError: the frames are not connected, or not at that time.
        """
        with self._lock:
            up_source, up_target = self._ancestors(source), self._ancestors(target)
            meeting = next((frame for frame in up_source if frame in up_target), None)
            if meeting is None:
                known = ", ".join(sorted({*self._parents, *self._parents.values()})) or "none"
                raise TransformError(f"no transform from '{source}' to '{target}' (known frames: {known})")
            return self._climb(target, meeting, stamp_ns).inverse() @ self._climb(source, meeting, stamp_ns)

    def _ancestors(self, frame: str) -> list[str]:
        """The frame itself, its parent, and so on up to a root."""
        found = [frame]
        while found[-1] in self._parents:
            found.append(self._parents[found[-1]])
        return found

    def _climb(self, frame: str, ancestor: str, stamp_ns: int) -> Transform:
        """(ancestor <- frame)."""
        result = Transform.identity()
        while frame != ancestor:
            result = self._at(frame, stamp_ns) @ result
            frame = self._parents[frame]
        return result

    def _at(self, child: str, stamp_ns: int) -> Transform:
        if child in self._fixed:
            return self._fixed[child]
        times = self._moving[child]
        after = bisect.bisect_left(times, stamp_ns, key=lambda entry: entry[0])
        if after < len(times) and times[after][0] == stamp_ns:
            return times[after][1]
        if after in (0, len(times)):
            edge = times[min(after, len(times) - 1)][0]
            raise TransformError(
                f"'{child}' in '{self._parents[child]}' is known {'from' if after == 0 else 'until'} {edge / 1e9:.3f} s, but "
                f"was asked for at {stamp_ns / 1e9:.3f} s"
            )
        (before, first), (later, second) = times[after - 1], times[after]
        return first.towards(second, (stamp_ns - before) / (later - before))
