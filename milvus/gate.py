"""Many readers or one writer: who may touch the Lite engine at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class Gate:
    """A lock that readers share and a writer has alone, in turns, so that neither side starves.

    A waiting writer goes before new readers; the readers that waited for it go before the next writer.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._reading = 0
        self._writing = False
        self._readers_waiting = 0
        self._writers_waiting = 0
        self._readers_turn = False

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hold the gate together with other readers."""
        with self._changed:
            self._readers_waiting += 1
            self._changed.wait_for(
                lambda: not self._writing and (self._readers_turn or not self._writers_waiting)
            )
            self._readers_waiting -= 1
            self._readers_turn = self._readers_turn and self._readers_waiting > 0
            self._reading += 1
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._reading -= 1
                self._changed.notify_all()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the gate alone."""
        with self._changed:
            self._writers_waiting += 1
            self._changed.wait_for(lambda: not self._writing and not self._reading and not self._readers_turn)
            self._writers_waiting -= 1
            self._writing = True
        try:
            yield
        finally:
            with self._changed:
                self._writing = False
                self._readers_turn = self._readers_waiting > 0
                self._changed.notify_all()
