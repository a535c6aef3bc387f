"""The progress of an import."""

import time
from collections import Counter
from typing import Any


class ImportPace:
    """How fast this process imports, and when it will be through."""

    def __init__(self, before: Counter[str]) -> None:
        self._before = Counter(before)
        self._started = time.monotonic()

    def progress(self, counts: Counter[str], total: int | None) -> dict[str, Any]:
        """Fields of the job's progress; rows are counted, and pictures timed."""
        elapsed_s = max(time.monotonic() - self._started, 1e-3)
        new = counts - self._before
        rate = new["rows"] / elapsed_s
        pictures = new["pictures_read"] + new["pictures_unchanged"]
        return {
            "total": total or 0,
            "done": counts["rows"],
            "failed": counts["failed"],
            "images_per_s": pictures / elapsed_s,
            "eta_s": None if total is None or not rate else max(0, total - counts["rows"]) / rate,
        }
