# SPDX-License-Identifier: Apache-2.0
"""Slots between the thread that receives and the thread that works: the latest wins, nothing queues up."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Holds at most one item of each sender. Neither side ever waits for the other's work."""

    def __init__(self):
        self._condition = threading.Condition()
        self._items: dict[str, T] = {}

    def put(self, sender: str, item: T) -> bool:
        """Leave an item; True if an older one of this sender that nobody had taken was dropped for it."""
        with self._condition:
            dropped = sender in self._items
            self._items[sender] = item
            self._condition.notify()
        return dropped

    def take(self, timeout: float) -> dict[str, T]:
        """All items, by sender, once there is one; empty after `timeout` seconds.

        Everybody's item is taken each time: no sender can starve another.
        """
        with self._condition:
            self._condition.wait_for(lambda: self._items, timeout)
            items, self._items = self._items, {}
        return items
