"""How many searches a replica has in work at once: as many as take little longer than one alone."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

FIRST = 16
"""Searches in work at once before anything is known, and again after a quiet while."""
LEAST = 1
"""Then each search is alone, so that the time of one is learned anew when it has changed for good."""
ROUND = 8
"""Answers between two decisions; so many searches must have been alone before the first."""
REMEMBERED = 64
FORGET_S = 60.0


@dataclass(frozen=True, slots=True)
class Entry:
    """A search in work: when it began, its number, and whether no other was in work then."""

    began: float
    number: int
    alone: bool


class SearchLimit:
    """Hold the time of searches near that of one alone while there are more than can be answered.

    Requests in work = rate × time (Little's law), and the rate of a busy replica is what it is, so their
    number sets their time. After each round of answers in which the limit was reached, it shrinks by the
    factor that the round's median is too long, or grows by one (additive increase, multiplicative
    decrease: Chiu and Jain, 1989). The time of one alone is the median of the last that were, so it
    follows models and machines. Slow searches refuse nobody as long as they are few: a limit that is not
    reached stays as it is.
    """

    def __init__(self, slowdown: float, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._slowdown = slowdown
        self._first, self._most = min(FIRST, most), most
        self._clock = clock
        self.limit = self._first
        self._in_work = 0
        self._entered = 0
        self._alone_s = deque[float](maxlen=REMEMBERED)
        self._round_s: list[float] = []
        self._reached = False
        self._reached_at = float("-inf")

    def enter(self) -> Entry | None:
        """Count a search in, or return None when there are enough in work."""
        now = self._clock()
        if self._in_work + 1 >= self.limit:
            if now - self._reached_at > FORGET_S:
                self.limit = self._first
            self._reached, self._reached_at = True, now
        if self._in_work >= self.limit:
            return None
        self._in_work += 1
        self._entered += 1
        return Entry(now, self._entered, alone=self._in_work == 1)

    def leave(self, entry: Entry) -> None:
        """Count a search out that `enter` has let in."""
        took_s = self._clock() - entry.began
        self._in_work -= 1
        if entry.alone and entry.number == self._entered:
            self._alone_s.append(took_s)
        self._round_s.append(took_s)
        if len(self._round_s) >= ROUND:
            if self._reached and len(self._alone_s) >= ROUND:
                self._decide(median(self._round_s) / (self._slowdown * median(self._alone_s)))
            self._round_s, self._reached = [], False

    def _decide(self, too_long: float) -> None:
        if too_long > 1:
            shrunk = round(self.limit / min(too_long, 2.0))
            self.limit = max(LEAST, min(self.limit - 1, shrunk))
        else:
            self.limit = min(self._most, self.limit + 1)
