"""A semaphore for work of different weights, as images of different sizes."""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

from core.errors import Overloaded


class WeightedSemaphore:
    """Threads work side by side as long as the weights that they hold fit a limit; first come, first served.

    Order matters: a heavy piece of work would never begin if light ones could pass it. Whoever holds a
    weight must not ask for another one.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._waiting = deque[object]()
        self._held = 0

    @contextmanager
    def holding(self, weight: int, limit: int, until: float | None = None) -> Iterator[None]:
        """Wait for room and hold it during this block; a weight above the limit is held alone.

        `until` is a time of `time.monotonic`; None waits as long as it takes.

        Raises:
            Overloaded: there was no room in time.
        """
        self._take(weight, limit, until)
        try:
            yield
        finally:
            with self._changed:
                self._held -= weight
                self._changed.notify_all()

    def _take(self, weight: int, limit: int, until: float | None) -> None:
        turn = object()

        def has_room() -> bool:
            return self._waiting[0] is turn and (self._held == 0 or self._held + weight <= limit)

        timeout_s = None if until is None else max(0.0, until - time.monotonic())
        with self._changed:
            self._waiting.append(turn)
            try:
                if not self._changed.wait_for(has_room, timeout_s):
                    raise Overloaded("too much is in work at once; try again shortly")
                self._held += weight
            finally:
                self._waiting.remove(turn)
                self._changed.notify_all()
