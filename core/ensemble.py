"""Search by several rankings at once: an ensemble of models, and vectors together with keywords."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Set
from dataclasses import replace
from functools import partial

from core.calibration import matching
from core.concurrency import CircuitBreaker, gather_outcomes
from core.errors import (
    DeadlineExceeded,
    InvalidInput,
    Unavailable,
    UnsupportedModality,
    VitrineError,
    most_actionable,
)
from core.filters import Filter
from core.fusion import (
    Fusion,
    beginnings,
    candidates,
    fuse_in_steps,
    fuse_rrf,
    fuse_weighted,
    fusion_depth,
    normalized_weights,
)
from core.ports import KeywordIndex
from core.search import ENSEMBLE, ModelSearch, SearchQuery, SearchResult
from core.telemetry import Stage
from core.types import Hit

Results = Mapping[str, SearchResult]

KEYWORD = "keyword"
"""Name of the keyword search in `timings_ms` and `skipped`."""
_SCORES_SHARE = 0.25
"""Share of the deadline that `weighted` reserves for scores, so that a late list leaves time for them."""


class EnsembleSearch:
    """Search of the members in parallel, within one deadline; fuses the answers that arrive."""

    def __init__(self, members: Mapping[str, ModelSearch], deadline_s: float) -> None:
        self._members = members
        self._deadline_s = deadline_s
        self._breakers = {name: CircuitBreaker(member.reach) for name, member in members.items()}

    async def search(self, query: SearchQuery) -> SearchResult:
        """Find the `query.limit` best distinct products in the fused order of the members.

        Members with weight 0 are not asked, nor are those in `query.not_asked`. A member that cannot encode a
        part of the query is skipped. A member that is down, late or fails by a bug is skipped too, and the
        answer is then `degraded`. Minimum scores remove hits, and do not change the order.

        With `weighted`, each member also scores the products that only other members found, in the time left.
        If it fails, its list is used as it is, and the answer is `degraded`.

        Raises:
            InvalidInput: no member has a weight above 0.
            VitrineError: no member could answer; it is the error that helps the caller most.
        """
        weights, fusion = query.weights or {}, query.fusion or "rrf"
        wanted = [name for name in self._members if weights.get(name, 1.0) > 0]
        if not wanted:
            raise InvalidInput("no member of the ensemble has a weight above 0").at("weights")
        asked = [name for name in wanted if name not in query.not_asked]
        # The ranks of a single list do not depend on its length.
        alone = fusion == "rrf" and len(asked) == 1
        depth = query.limit if alone else fusion_depth(query.limit)
        deep = replace(query, limit=depth, minimum_scores=None)
        completed = fusion == "weighted" and len(asked) > 1
        until = asyncio.get_running_loop().time() + self._deadline_s
        within_s = self._deadline_s * (1 - _SCORES_SHARE if completed else 1)
        lists = {name: self._ask(name, deep, within_s) for name in asked}
        answered, missed = await gather_outcomes(lists, "the search with")
        failed: dict[str, VitrineError] = {
            name: UnsupportedModality(query.not_asked[name]) for name in wanted if name not in asked
        }
        failed |= missed
        if not answered:
            raise most_actionable(failed.values())
        used = normalized_weights(weights, list(answered))
        scored, incomplete = answered, dict[str, VitrineError]()
        if completed:
            scored, incomplete = await self._score_all(answered, query.filter, until)
        with Stage("fuse", ENSEMBLE) as stage:
            hits = _fuse(fusion, query.limit, answered, scored, used)
            if query.minimum_scores is not None:
                found = {name: (each.versions[0].collection, each.hits) for name, each in scored.items()}
                hits = matching(hits, found, used, query.minimum_scores)
        timings_ms = {
            f"{name}.{key}": ms for name, each in scored.items() for key, ms in each.timings_ms.items()
        }
        return SearchResult(
            hits[: query.limit],
            [version for result in scored.values() for version in result.versions],
            used,
            skipped={name: error.message for name, error in failed.items()},
            incomplete={name: error.message for name, error in incomplete.items()},
            degraded=bool(incomplete)
            or any(not isinstance(error, UnsupportedModality) for error in failed.values()),
            timings_ms=timings_ms | {"fuse": stage.ms},
        )

    async def _ask(self, name: str, query: SearchQuery, within_s: float) -> SearchResult:
        breaker = self._breakers[name]
        if breaker.is_open():
            raise DeadlineExceeded(f"model {name!r} did not answer lately; it is asked again meanwhile")
        try:
            async with asyncio.timeout(within_s):
                return await self._members[name].search(query)
        except (TimeoutError, DeadlineExceeded) as error:
            breaker.open()
            if isinstance(error, DeadlineExceeded):
                raise
            raise DeadlineExceeded(f"model {name!r} did not answer within {within_s:g} s") from None

    async def _score_all(
        self, answered: Results, filter: Filter | None, until: float
    ) -> tuple[dict[str, SearchResult], dict[str, VitrineError]]:
        """Let every member score all candidates: the products in any of the lists.

        A member that fails or is late keeps its list, and its error is returned. A candidate without an image in a
        member's collection has no score of that member.
        """
        found = {hit.product_id for result in answered.values() for hit in result.hits}
        work = {name: self._score(name, result, found, filter, until) for name, result in answered.items()}
        scored, failed = await gather_outcomes(work, "the scores of")
        return {**answered, **scored}, failed

    async def _score(
        self, name: str, result: SearchResult, found: Set[str], filter: Filter | None, until: float
    ) -> SearchResult:
        unknown = sorted(found - {hit.product_id for hit in result.hits})
        if not unknown:
            return result
        (embedded,) = result.embedded.values()
        model = embedded.info.name
        try:
            with Stage("score", model) as stage:
                async with asyncio.timeout_at(until):
                    scored = await self._members[name].score(embedded, unknown, filter)
        except TimeoutError:
            late = f"model {model!r} did not score {len(unknown)} candidates in the time left"
            raise DeadlineExceeded(late) from None
        hits = sorted([*result.hits, *scored], key=lambda hit: (-hit.score, hit.product_id))
        return replace(result, hits=hits, timings_ms=result.timings_ms | {"score": stage.ms})


def _fuse(
    fusion: Fusion, limit: int, answered: Results, scored: Results, weights: Mapping[str, float]
) -> list[Hit]:
    """Order products; `scored` holds the lists with each member's scores of the other members' products."""
    lists = {name: result.hits for name, result in answered.items()}
    if fusion == "rrf":
        return fuse_in_steps(limit, partial(beginnings, lists), partial(fuse_rrf, weights=weights))
    scores = {name: result.hits for name, result in scored.items()}
    return fuse_in_steps(limit, partial(candidates, lists, scores), partial(fuse_weighted, weights=weights))


class HybridSearch:
    """Search by vectors and by keywords in parallel; if one cannot answer, the other may answer alone.

    Together with vectors, only products with every word of the query count as keyword matches. Reciprocal ranks
    cannot tell a strong match from a weak one, so one common word would lift any product. In a keyword search
    alone, one matching word is enough.
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

        `query.keyword_weight` is the weight of the keyword ranking; the vectors have the rest. With 0 there is no
        keyword search. With 1 no model is asked.

        Raises:
            VitrineError: neither could answer, or the vectors could not and keywords cannot replace them: the
                query is not text only, or the error is the caller's.
        """
        weight = query.keyword_weight or 0.0
        if weight == 0:
            return await self._by_vectors(query)
        if weight == 1:
            return await self._by_keywords(query)
        # An ensemble asks for at least twice its limit, so half of the depth keeps its lists as deep as usual.
        deep = replace(query, limit=fusion_depth(query.limit) // 2)
        both = {"vectors": self._by_vectors(deep), KEYWORD: self._by_keywords(deep, True)}
        answered, failed = await gather_outcomes(both, "the search by")
        if error := failed.get("vectors"):
            replaceable = query.is_text_only and isinstance(error, Unavailable | UnsupportedModality)
            if KEYWORD in failed or not replaceable:
                raise error
            alone, degraded = await self._by_keywords(query), isinstance(error, Unavailable)
            return replace(alone, skipped={query.model: error.message}, degraded=degraded)
        vectors = answered["vectors"]
        if error := failed.get(KEYWORD):
            skipped = {**vectors.skipped, KEYWORD: error.message}
            return replace(vectors, hits=vectors.hits[: query.limit], skipped=skipped, degraded=True)
        return _fused(vectors, answered[KEYWORD], weight, query.limit)

    async def _by_keywords(self, query: SearchQuery, every_word: bool = False) -> SearchResult:
        until = time.monotonic() + self._deadline_s

        def find() -> list[Hit]:
            # The thread may start late. It must stop when nobody waits for its result.
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
    # If both found the product, the nearest image by vectors is shown.
    nearest = {hit.product_id: hit for hit in vectors.hits}
    shares = {"vectors": 1 - weight, KEYWORD: weight}
    lists = {"vectors": vectors.hits, KEYWORD: [nearest.get(hit.product_id, hit) for hit in keywords.hits]}
    # Both were asked for half of the depth.
    hits = fuse_in_steps(
        limit, lambda depth: beginnings(lists, depth // 2), lambda some: fuse_rrf(some, shares)
    )
    timings_ms = vectors.timings_ms | keywords.timings_ms
    return replace(vectors, hits=hits[:limit], timings_ms=timings_ms, keyword_weight=weight)
