"""Search by vectors and by keywords at once: two rankings of products, fused by reciprocal rank."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from core.errors import DeadlineExceeded, Unavailable, UnsupportedModality, VitrineError
from core.fusion import beginnings, fuse_in_steps, fuse_rrf, fusion_depth
from core.ports import KeywordIndex
from core.search import SearchQuery, SearchResult
from core.telemetry import Stage
from core.types import Hit

KEYWORD = "keyword"
"""Name of the keyword search in timings and among what was skipped."""


class HybridSearch:
    """Search by vectors and by keywords in parallel; where one cannot answer, the other does and says so.

    Beside vectors only products that hold every word count: reciprocal ranks cannot tell a strong match
    from a weak one, and one common word would lift anything. A keyword search alone takes any word.
    """

    def __init__(
        self,
        by_vectors: Callable[[SearchQuery], Awaitable[SearchResult]],
        keyword: KeywordIndex,
        deadline_s: float,
    ) -> None:
        self._by_vectors = by_vectors
        self._keyword = keyword
        self._deadline_s = deadline_s

    async def search(self, query: SearchQuery) -> SearchResult:
        """Find the `query.limit` best distinct products.

        The keyword search has `query.keyword_weight` of the order, the vectors the rest. With 0 it is left out,
        with 1 no model is asked.

        Raises:
            VitrineError: neither could answer; or the vectors could not, and the query is more than text.
        """
        weight = query.keyword_weight or 0.0
        if weight == 0:
            return await self._by_vectors(query)
        if weight == 1:
            return await self._by_keywords(query)
        # Half of the depth, so that an ensemble fuses lists of the same depth as without keywords.
        deep = replace(query, limit=fusion_depth(query.limit) // 2)
        vectors, keywords = await asyncio.gather(
            _outcome(self._by_vectors, deep), _outcome(self._by_keywords, deep, True)
        )
        if isinstance(vectors, VitrineError):
            replaceable = query.is_text_only and isinstance(vectors, Unavailable | UnsupportedModality)
            if isinstance(keywords, VitrineError) or not replaceable:
                raise vectors
            alone = await self._by_keywords(query)
            degraded = isinstance(vectors, Unavailable)
            return replace(alone, skipped={query.model: vectors.message}, degraded=degraded)
        if isinstance(keywords, VitrineError):
            skipped = {**vectors.skipped, KEYWORD: keywords.message}
            return replace(vectors, hits=vectors.hits[: query.limit], skipped=skipped, degraded=True)
        return _fused(vectors, keywords, weight, query.limit)

    async def _by_keywords(self, query: SearchQuery, every_word: bool = False) -> SearchResult:
        until = time.monotonic() + self._deadline_s

        def find() -> list[Hit]:
            # The thread may begin late, and must not go on when nobody waits for it any more.
            left_s = until - time.monotonic()
            return self._keyword.search(
                query.text, query.limit, query.filter, query.exclude_products, every_word, left_s
            )

        try:
            with Stage("keyword", KEYWORD) as stage:
                async with asyncio.timeout(self._deadline_s):
                    hits = await asyncio.to_thread(find)
        except TimeoutError:
            late = f"the keyword search did not end within {self._deadline_s:g} s"
            raise DeadlineExceeded(late) from None
        return SearchResult(hits, keyword_weight=1.0, timings_ms={KEYWORD: stage.ms})


def _fused(vectors: SearchResult, keywords: SearchResult, weight: float, limit: int) -> SearchResult:
    # The image shown is the one that was nearest, where both know the product.
    nearest = {hit.product_id: hit for hit in vectors.hits}
    shares = {"vectors": 1 - weight, KEYWORD: weight}
    lists = {"vectors": vectors.hits, KEYWORD: [nearest.get(hit.product_id, hit) for hit in keywords.hits]}
    # Both were asked for half of the depth.
    hits = fuse_in_steps(
        limit, lambda depth: beginnings(lists, depth // 2), lambda some: fuse_rrf(some, shares)
    )
    timings_ms = vectors.timings_ms | keywords.timings_ms
    return replace(vectors, hits=hits[:limit], timings_ms=timings_ms, keyword_weight=weight)


async def _outcome(
    search: Callable[..., Awaitable[SearchResult]], *args: object
) -> SearchResult | VitrineError:
    # Begun here, so that a caller who goes away sooner leaves nothing half begun.
    try:
        return await search(*args)
    except VitrineError as error:
        return error
