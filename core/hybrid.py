"""Search by vectors and by words at once: two rankings of products, fused by reciprocal rank."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from core.ensemble import EnsembleResult
from core.errors import DeadlineExceeded, Unavailable, UnsupportedModality, VitrineError
from core.fusion import beginnings, fuse_in_steps, fuse_rrf, fusion_depth
from core.ports import KeywordIndex
from core.search import Query, QueryPart
from core.telemetry import Stage
from core.types import Hit

KEYWORD = "keyword"
"""What the ranking by words is called in timings and among what was skipped."""


class HybridSearch:
    """Search by vectors and by words in parallel; where one cannot answer, the other does and says so.

    Beside vectors only products that hold every word count: reciprocal ranks cannot tell a strong match
    from a weak one, and one common word would lift anything. Words alone take what they can get.
    """

    def __init__(self, keyword: KeywordIndex, deadline_s: float) -> None:
        self._keyword = keyword
        self._deadline_s = deadline_s

    async def search(
        self,
        query: Query,
        weight: float,
        model: str,
        by_vectors: Callable[[Query], Awaitable[EnsembleResult]],
    ) -> EnsembleResult:
        """Find the `query.limit` best distinct products; the words' ranking has `weight`, the vectors' the rest.

        `by_vectors` searches with what the caller calls `model`. With weight 1 no model is asked.

        Raises:
            VitrineError: neither could answer; or the vectors could not, and the query is more than words.
        """
        # Half of the depth, so that an ensemble fuses lists of the same depth as without words.
        deep = replace(query, limit=fusion_depth(query.limit) // 2)
        if weight == 1:
            return await self._by_words(query, every_word=False)
        vectors, words = await asyncio.gather(
            _outcome(by_vectors, deep), _outcome(self._by_words, deep, True)
        )
        if isinstance(vectors, VitrineError):
            if isinstance(words, VitrineError) or not _words_can_stand_in(query, vectors):
                raise vectors
            alone = await self._by_words(query, every_word=False)
            degraded = isinstance(vectors, Unavailable)
            return replace(alone, skipped={model: vectors.message}, degraded=degraded)
        if isinstance(words, VitrineError):
            skipped = {**vectors.skipped, KEYWORD: words.message}
            return replace(vectors, hits=vectors.hits[: query.limit], skipped=skipped, degraded=True)
        return _fused(vectors, words, weight, query.limit)

    async def _by_words(self, query: Query, every_word: bool) -> EnsembleResult:
        words = positive_words(query.parts)
        until = time.monotonic() + self._deadline_s

        def find() -> list[Hit]:
            # The thread may begin late, and must not go on when nobody waits for it any more.
            left_s = until - time.monotonic()
            return self._keyword.search(
                words, query.limit, query.filter, query.exclude_products, every_word, left_s
            )

        try:
            with Stage("keyword", KEYWORD) as stage:
                async with asyncio.timeout(self._deadline_s):
                    hits = await asyncio.to_thread(find)
        except TimeoutError:
            raise DeadlineExceeded(f"the search by words did not end within {self._deadline_s:g} s") from None
        return EnsembleResult(hits, [], {}, {}, False, {KEYWORD: stage.ms}, keyword_weight=1.0)


def positive_words(parts: Sequence[QueryPart]) -> str:
    """Join the words that pull; what pushes away has no meaning in a ranking by words."""
    return " ".join(part.content for part in parts if isinstance(part.content, str) and part.weight > 0)


def is_words_only(parts: Sequence[QueryPart]) -> bool:
    """Tell whether a query has words that pull, and nothing but words."""
    return bool(positive_words(parts)) and all(isinstance(part.content, str) for part in parts)


def _words_can_stand_in(query: Query, error: VitrineError) -> bool:
    return is_words_only(query.parts) and isinstance(error, Unavailable | UnsupportedModality)


def _fused(vectors: EnsembleResult, words: EnsembleResult, weight: float, limit: int) -> EnsembleResult:
    # The image shown is the one that was nearest, where both know the product.
    nearest = {hit.product_id: hit for hit in vectors.hits}
    by_words = [nearest.get(hit.product_id, hit) for hit in words.hits]
    shares = {"vectors": 1 - weight, KEYWORD: weight}
    lists = {"vectors": vectors.hits, KEYWORD: by_words}
    # Both were asked for half of the depth.
    hits = fuse_in_steps(
        limit, lambda depth: beginnings(lists, depth // 2), lambda some: fuse_rrf(some, shares)
    )
    return replace(
        vectors,
        hits=hits[:limit],
        timings_ms=vectors.timings_ms | words.timings_ms,
        keyword_weight=weight,
    )


async def _outcome(
    search: Callable[..., Awaitable[EnsembleResult]], *args: object
) -> EnsembleResult | VitrineError:
    # Begun here, so that a caller who goes away sooner leaves nothing half begun.
    try:
        return await search(*args)
    except VitrineError as error:
        return error
