"""Searches under a filter in an HNSW index: how wide they go, and in how many parts.

HNSW loses neighbors under a filter, because most nodes of the graph do not count. Where a filter passes at most
7 % of a segment's rows, Milvus compares all of these by itself, which is exact and fast (Knowhere's
`kHnswBruteForceFilterRate`). A little above that, no width helps: where 8 % of a million rows passed, `ef`
1,024 found 97 % of the true neighbors. There, two searches, each of one half of the rows, are exact. From some 12 %
on, a wider search finds nearly all.
"""

import math
from collections.abc import Callable
from threading import Lock

from cachetools import TTLCache

from milvus.config import IndexConfig

_FRESH_S = 30.0
_MOST_KEPT = 1000
_EXACT_SHARE = 0.06
"""Below the 7 % by enough that segments may differ."""
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


def halves(expression: str, share: float) -> list[str]:
    """Split an expression that passes a little too much to be searched exactly; any other stays as it is.

    The collection has the field `part`.
    """
    if _EXACT_SHARE < share <= 2 * _EXACT_SHARE:
        return [f"({expression}) and (part == {part})" for part in (0, 1)]
    return [expression]


def width(share: float, count: int, index: IndexConfig) -> int:
    """Return the ef of a search for `count` rows under a filter that this share of the rows passes."""
    twice = 2 * count if 2 * count <= index.max_ef else count
    return max(index.min_ef, twice, min(math.ceil(_WIDTH / max(share, _EXACT_SHARE)), index.max_ef))
