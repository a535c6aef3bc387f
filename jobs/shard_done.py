"""What an actor tells of a shard that it has gone through."""

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from core.indexing import IndexState


@dataclass
class ShardDone:
    """Counts and times of a shard, which begins when this is made; times are seconds since 1970.

    The first batch is told apart: it waits for connections and caches to be made.
    """

    counts: Counter[IndexState] = field(default_factory=Counter)
    began: float = field(default_factory=time.time)
    warm_up: int = 0
    warmed: float | None = None

    def add(self, states: dict[str, IndexState]) -> None:
        """Take in what became of a batch."""
        if self.warmed is None:
            self.warm_up = sum(state != "pending" for state in states.values())
            self.warmed = time.time()
        self.counts.update(states.values())

    def put_off(self) -> None:
        """Count what was indexed as pending: it did not get to where it can be found."""
        self.counts["pending"] += self.counts["indexed"]
        self.counts["indexed"] = 0

    def row(self) -> dict[str, Any]:
        """Tell it as a row of Ray Data, now that the shard has ended."""
        return {
            "indexed": self.counts["indexed"],
            "failed": self.counts["failed"],
            "pending": self.counts["pending"],
            "began": self.began,
            "warm_up": self.warm_up,
            "warmed": self.warmed,
            "ended": time.time(),
        }
