# SPDX-License-Identifier: Apache-2.0
"""The one `lookup` of the node: transforms from parameters, and from tf where tf2_ros is installed."""

from __future__ import annotations

from rclpy.node import Node
from rclpy.time import Time

from ..geometry import Transform, TransformError, TransformTree

try:
    import tf2_ros
except ImportError:  # it is not on PyPI
    tf2_ros = None

_JUMP_NS = 2_000_000_000


class Transforms:
    """Transforms of the node. Any thread may ask; `refresh` belongs to the spinning one."""

    def __init__(self, node: Node, fixed: TransformTree):
        self._node, self._fixed = node, fixed
        self._wanted = self._again = False
        self._latest: dict[str, int] = {}  # source frame -> stamp that was asked for, nanoseconds
        self._buffer = self._listener = None

    def refresh(self) -> None:
        """Begin to listen to tf once somebody has asked for what the parameters do not know."""
        if self._again:
            self.close()
            self._wanted, self._again = True, False
        if self._wanted and self._listener is None and tf2_ros:
            self._buffer = tf2_ros.Buffer()
            self._listener = tf2_ros.TransformListener(self._buffer, self._node, spin_thread=False)

    def close(self) -> None:
        """Stop listening."""
        if self._listener:
            self._listener.unregister()
        self._buffer = self._listener = None
        self._wanted = False

    def lookup(self, target: str, source: str, stamp_ns: int) -> Transform:
        """(target <- source) at a time. Frames are named with or without tf1's leading slash.

        Raises:
            TransformError: it is not known; the message says what to do.
        """
        target, source = target.lstrip("/"), source.lstrip("/")
        try:
            return self._fixed.lookup(target, source, stamp_ns)
        except TransformError as error:
            problem = str(error)
        if tf2_ros is None:
            raise TransformError(f"{problem}; tf2_ros is not installed: set the parameter transforms")
        self._wanted, buffer = True, self._buffer
        # A buffer keeps the end of a bag that begins anew, and takes its beginning for too old.
        self._again |= stamp_ns < self._latest.get(source, stamp_ns) - _JUMP_NS
        self._latest[source] = stamp_ns
        if buffer is None or self._again:
            raise TransformError(f"no transform from '{source}' to '{target}' yet: tf is being asked")
        try:
            found = buffer.lookup_transform(target, source, Time(nanoseconds=stamp_ns)).transform
        except tf2_ros.TransformException as error:
            raise TransformError(f"no transform from '{source}' to '{target}': {error}") from error
        shift, turn = found.translation, found.rotation
        return Transform.from_quaternion((shift.x, shift.y, shift.z), (turn.x, turn.y, turn.z, turn.w))
