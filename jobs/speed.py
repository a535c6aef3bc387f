"""How fast a bulk job is once it runs, apart from what it takes to start."""

from typing import Any


class Speed:
    """Collects the results of shards; times are seconds since 1970.

    The very first batch counts as part of the start, unless there is no other: what it waits for, no later
    one does.
    """

    def __init__(self, started: float) -> None:
        self._started = started
        self._began: float | None = None
        self._warmed = started
        self._warm_up = 0
        self._last_ended = started
        self.done = 0

    def add(self, result: dict[str, Any]) -> None:
        """Take in one shard's counts and times; a shard without pictures says nothing of the speed."""
        pictures = int(result["indexed"] + result["failed"])
        if not pictures:
            return
        self.done += pictures
        began, warmed = float(result["began"]), float(result["warmed"])
        if self._began is None or warmed < self._warmed:
            self._warmed, self._warm_up = warmed, int(result["warm_up"])
        self._began = began if self._began is None else min(self._began, began)
        self._last_ended = max(self._last_ended, float(result["ended"]))

    def lasted_until(self, ended: float) -> None:
        """Count what came behind the last shard too, such as an import of what it has written."""
        self._last_ended = max(self._last_ended, ended)

    @property
    def startup_s(self) -> float:
        """Seconds from the start until the speed is what it stays."""
        return 0.0 if self._began is None else self._steady[0] - self._started

    @property
    def images_per_s(self) -> float | None:
        """Pictures per second from then on; None while nothing is known."""
        if self._began is None:
            return None
        since, pictures = self._steady
        return pictures / (self._last_ended - since) if self._last_ended > since else None

    def seconds_for(self, pictures: int) -> float | None:
        """Seconds that this many more pictures take, without a start."""
        rate = self.images_per_s
        return None if rate is None else pictures / rate

    @property
    def _steady(self) -> tuple[float, int]:
        """Since when the speed is steady, and how many pictures came since."""
        if self.done > self._warm_up:
            return self._warmed, self.done - self._warm_up
        return self._began or self._started, self.done
