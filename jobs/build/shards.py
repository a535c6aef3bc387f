"""Shards: ranges of image ids, their counts and times, and the speed that follows from them."""

import math
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, get_args

from core.indexing import IndexState

_DIGITS = 8
_BEYOND_ALL = "g"
_MAX_SHARDS = 4096
"""Ray Data plans each shard as one block; more of them cost planning and win nothing."""


@dataclass(frozen=True, slots=True)
class Shard:
    """The image ids from `first` to before `beyond`."""

    first: str
    beyond: str

    @property
    def end(self) -> str | None:
        """Return `beyond`, but None in the last shard, for keys that need not be image ids."""
        return None if self.beyond == _BEYOND_ALL else self.beyond


def cut(images: int, shard_images: int, share: float = 1.0) -> list[Shard]:
    """Cut the first `share` (0 to 1) of all ids so that about `shard_images` of `images` fall to each."""
    count = max(1, min(_MAX_SHARDS, round(images * share / shard_images)))
    bounds = [_bound(share * number / count) for number in range(count + 1)]
    return [Shard(first, beyond) for first, beyond in pairwise(bounds)]


def _bound(share: float) -> str:
    if share >= 1:
        return _BEYOND_ALL
    return f"{int(share * 16**_DIGITS):0{_DIGITS}x}"


@dataclass
class ShardDone:
    """Counts and times of a shard, which begins when this is made; times are seconds since 1970.

    The first batch is counted apart: it waits for connections and caches to be made.
    """

    counts: Counter[IndexState] = field(default_factory=Counter)
    began: float = field(default_factory=time.time)
    warm_up: int = 0
    warmed: float | None = None

    def add(self, states: dict[str, IndexState]) -> None:
        """Add the states of a batch."""
        if self.warmed is None:
            self.warm_up = sum(state != "pending" for state in states.values())
            self.warmed = time.time()
        self.counts.update(states.values())

    def postpone(self) -> None:
        """Count what was indexed as pending: its file was not stored."""
        self.counts["pending"] += self.counts.pop("indexed", 0)

    def row(self) -> dict[str, Any]:
        """Write it as a row of Ray Data, now that the shard has ended."""
        return {
            **{state: self.counts[state] for state in get_args(IndexState)},
            "began": self.began,
            "warm_up": self.warm_up,
            "warmed": self.warmed,
            "ended": time.time(),
        }


class Speed:
    """Sums up the results of shards; times are seconds since 1970.

    The very first batch counts as part of the start, unless there is no other: no later one waits as it does.
    """

    def __init__(self, started: float) -> None:
        self.done = 0
        self._started = self._ended = started
        self._began = self._warmed = math.inf
        self._warm_up = 0

    def add(self, result: dict[str, Any]) -> None:
        """Add the counts and times of a shard; one without images says nothing of the speed."""
        images = int(result["indexed"] + result["failed"])
        if not images:
            return
        self.done += images
        if result["warmed"] < self._warmed:
            self._warmed, self._warm_up = float(result["warmed"]), int(result["warm_up"])
        self._began = min(self._began, float(result["began"]))
        self.lasted_until(float(result["ended"]))

    def lasted_until(self, ended: float) -> None:
        """Count what followed the last shard too, such as the import of its file."""
        self._ended = max(self._ended, ended)

    @property
    def startup_s(self) -> float:
        """Seconds from the start until the speed is steady."""
        return self._steady[0] - self._started if self.done else 0.0

    @property
    def images_per_s(self) -> float | None:
        """Images per second from then on; None while nothing is known."""
        since, images = self._steady
        return images / (self._ended - since) if self._ended > since else None

    def seconds_for(self, images: int) -> float | None:
        """Seconds that this many more images take, without a start."""
        rate = self.images_per_s
        return None if rate is None else images / rate

    @property
    def _steady(self) -> tuple[float, int]:
        """The time since which the speed is steady, and the images since then."""
        if self.done > self._warm_up:
            return self._warmed, self.done - self._warm_up
        return self._began, self.done
