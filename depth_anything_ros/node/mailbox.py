# SPDX-License-Identifier: Apache-2.0
"""One slot between the thread that receives and the thread that works: the latest wins, nothing queues up."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Holds at most one item. Neither side ever waits for the other's work."""

    def __init__(self):
        self._condition = threading.Condition()
        self._item: T | None = None

    def put(self, item: T) -> bool:
        """Leave an item; True if an older one that nobody had taken was dropped for it."""
        with self._condition:
            dropped = self._item is not None
            self._item = item
            self._condition.notify()
        return dropped

    def take(self, timeout: float) -> T | None:
        """The item, once there is one; None after `timeout` seconds."""
        with self._condition:
            self._condition.wait_for(lambda: self._item is not None, timeout)
            item, self._item = self._item, None
        return item
