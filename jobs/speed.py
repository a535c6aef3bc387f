"""How fast a bulk job is once it runs, apart from what it takes to start."""

from typing import Any


class Speed:
    """Collects the results of shards; times are seconds since 1970."""

    def __init__(self, started: float) -> None:
        self._started = started
        self._first_began: float | None = None
        self._last_ended = started
        self.done = 0

    def add(self, result: dict[str, Any]) -> None:
        """Take in one shard's counts and times; a shard without pictures says nothing of the speed."""
        pictures = int(result["indexed"] + result["failed"])
        if not pictures:
            return
        self.done += pictures
        began = float(result["began"])
        self._first_began = began if self._first_began is None else min(self._first_began, began)
        self._last_ended = max(self._last_ended, float(result["ended"]))

    @property
    def startup_s(self) -> float:
        """Seconds from the start to the first shard."""
        return 0.0 if self._first_began is None else self._first_began - self._started

    @property
    def images_per_s(self) -> float | None:
        """Pictures per second from the first shard's begin to the last one's end."""
        if self._first_began is None or self._last_ended <= self._first_began:
            return None
        return self.done / (self._last_ended - self._first_began)

    def seconds_for(self, pictures: int) -> float | None:
        """Seconds that this many more pictures take, without a start."""
        rate = self.images_per_s
        return None if rate is None else pictures / rate
