"""What a filter makes of a search in an HNSW index: how wide it goes, or in how many parts.

HNSW loses neighbors under a filter, because most of the graph's nodes do not count: of rows that a tenth passed it
found 95 % at its default width. So a search goes wider, the fewer rows pass. Below 7 % Milvus itself compares all
that pass, which is exact, and faster (Knowhere, `kHnswBruteForceFilterRate`). In between, a search in parts that
each pass less than that is exact as well: a row belongs to a part by its revision.
"""

import math
from collections.abc import Callable
from threading import Lock

from cachetools import TTLCache

from milvus.config import IndexConfig

_FRESH_S = 30.0
_MOST_KEPT = 1000
_EXACT_SHARE = 0.05
"""Share of a part: below the 7 % by enough that the segments of a collection may differ."""
_MAX_PARTS = 4
_WIDTH = 256
"""ef times the share that passes, from which on recall is 0.99 (measured)."""


class Shares:
    """Shares of rows that pass a filter, by collection and expression. Thread-safe.

    `count` counts the rows of a collection that pass an expression.
    """

    def __init__(self, count: Callable[[str, str], int]) -> None:
        self._count = count
        self._kept: TTLCache[tuple[str, str], float] = TTLCache(_MOST_KEPT, _FRESH_S)
        self._lock = Lock()

    def of(self, collection: str, expression: str) -> float:
        """Return the share, at most 30 s old; 1 without an expression."""
        if not expression:
            return 1.0
        with self._lock:
            known = self._kept.get((collection, expression))
        if known is not None:
            return known
        share = self._count(collection, expression) / max(1, self._count(collection, ""))
        with self._lock:
            self._kept[collection, expression] = share
        return share


def parts(expression: str, share: float) -> list[str]:
    """Split an expression into those that together pass the same rows, each few enough; often into itself alone."""
    number = math.ceil(share / _EXACT_SHARE)
    if not 1 < number <= _MAX_PARTS:
        return [expression]
    return [f"({expression}) and (revision % {number} == {part})" for part in range(number)]


def width(share: float, count: int, index: IndexConfig) -> int:
    """Return the ef of a search for `count` rows under a filter that this share of the rows passes."""
    twice = 2 * count if 2 * count <= index.max_ef else count
    return max(index.min_ef, twice, min(math.ceil(_WIDTH / max(share, _EXACT_SHARE)), index.max_ef))
