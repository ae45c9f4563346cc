# SPDX-License-Identifier: Apache-2.0
"""How much may wait between two threads, in bytes."""

from __future__ import annotations

import threading


class Room:
    """For so many bytes; and, however large they are, for `least` things."""

    def __init__(self, size: int, least: int = 1):
        self._size, self._least = size, least
        self._taken, self._things, self._open = 0, 0, False
        self._changed = threading.Condition()

    def take(self, size: int) -> None:
        """Wait for room, and take it."""
        with self._changed:
            self._changed.wait_for(lambda: self._open or self._things < self._least or self._taken + size <= self._size)
            self._taken += size
            self._things += 1

    def give(self, size: int) -> None:
        """Give it back."""
        with self._changed:
            self._taken -= size
            self._things -= 1
            self._changed.notify_all()

    def open(self) -> None:
        """From now on there is room for everything: nobody takes it out any more."""
        with self._changed:
            self._open = True
            self._changed.notify_all()
