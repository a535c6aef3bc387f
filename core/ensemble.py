"""Search with several models at once, and fusion of what they find."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from core.calibration import matching
from core.concurrency import CircuitBreaker, gather_outcomes
from core.errors import (
    DeadlineExceeded,
    InvalidInput,
    UnsupportedModality,
    VitrineError,
    expected,
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
from core.search import ENSEMBLE, ModelSearch, SearchQuery, SearchResult
from core.telemetry import Stage
from core.types import Hit

Results = Mapping[str, SearchResult]


class EnsembleSearch:
    """Ask the members side by side, each within the deadline, and fuse the answers that came."""

    def __init__(self, members: Mapping[str, ModelSearch], deadline_s: float) -> None:
        self._members = members
        self._deadline_s = deadline_s
        self._breakers = {name: CircuitBreaker(member.reach) for name, member in members.items()}

    async def search(self, query: SearchQuery) -> SearchResult:
        """Find the `query.limit` best distinct products in the fused order of the members.

        Members with weight 0 are not asked. A member that cannot encode a part of the query is skipped,
        and not asked either where the query says so. One that is away, late or fails by a bug is skipped
        too and makes the answer `degraded`. Minimum scores choose what is shown, not its order.

        With `weighted`, a member is asked for its score of what only others have found, in what is left
        of its time. When it cannot say, it contributes what it has and the answer is `degraded`.

        Raises:
            InvalidInput: no member has a weight above 0.
            VitrineError: no member could answer; the error is the one that helps the caller most.
        """
        weights, fusion = query.weights or {}, query.fusion or "rrf"
        wanted = [name for name in self._members if weights.get(name, 1.0) > 0]
        if not wanted:
            raise InvalidInput("no member of the ensemble has a weight above 0").at("weights")
        asked = [name for name in wanted if name not in query.not_asked]
        # The ranks of one list alone are the same however long it is.
        alone = fusion == "rrf" and len(asked) == 1
        depth = query.limit if alone else fusion_depth(query.limit)
        deep = replace(query, limit=depth, minimum_scores=None)
        outcomes = await asyncio.gather(*(self._ask(name, deep) for name in asked))
        answers = {name: answer for name, (answer, _) in zip(asked, outcomes, strict=True)}
        answered = {name: answer for name, answer in answers.items() if isinstance(answer, SearchResult)}
        failed: dict[str, VitrineError] = {
            name: UnsupportedModality(query.not_asked[name]) for name in wanted if name not in asked
        }
        failed |= {name: answer for name, answer in answers.items() if isinstance(answer, VitrineError)}
        if not answered:
            raise most_actionable(failed.values())
        used = normalized_weights(weights, list(answered))
        scored, incomplete = answered, dict[str, VitrineError]()
        if fusion == "weighted":
            left_s = {name: left for name, (_, left) in zip(asked, outcomes, strict=True)}
            scored, incomplete = await self._score_all(answered, query.filter, left_s)
        with Stage("fuse", ENSEMBLE) as stage:
            hits = _fuse(fusion, query.limit, answered, scored, used)
            if query.minimum_scores is not None:
                found = {name: (each.versions[0].collection, each.hits) for name, each in scored.items()}
                hits = matching(hits, found, used, query.minimum_scores)
        return SearchResult(
            hits[: query.limit],
            [version for result in scored.values() for version in result.versions],
            used,
            skipped={name: error.message for name, error in failed.items()},
            incomplete={name: error.message for name, error in incomplete.items()},
            degraded=bool(incomplete)
            or any(not isinstance(error, UnsupportedModality) for error in failed.values()),
            timings_ms=_timings(scored) | {"fuse": stage.ms},
        )

    async def _ask(self, name: str, query: SearchQuery) -> tuple[SearchResult | VitrineError, float]:
        """Return the member's answer and how many seconds are left of its time."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._deadline_s
        breaker = self._breakers[name]
        if breaker.is_open():
            late = f"model {name!r} did not answer lately; it is asked again meanwhile"
            return DeadlineExceeded(late), self._deadline_s
        answer: SearchResult | VitrineError
        try:
            async with asyncio.timeout_at(until):
                answer = await self._members[name].search(query)
        except TimeoutError:
            answer = DeadlineExceeded(f"model {name!r} did not answer within {self._deadline_s:g} s")
        except Exception as error:
            answer = expected(error, f"the search with {name}")
        if isinstance(answer, DeadlineExceeded):
            breaker.open()
        return answer, until - loop.time()

    async def _score_all(
        self, answered: Results, filter: Filter | None, left_s: Mapping[str, float]
    ) -> tuple[dict[str, SearchResult], dict[str, VitrineError]]:
        """Let every member score all candidates: the products that any of the lists holds.

        Each member has `left_s` seconds. One that does not end in time, or fails, keeps the list it has and
        is named among the errors. A candidate without an image in a member's collection stays unscored.
        """
        candidates = sorted({hit.product_id for result in answered.values() for hit in result.hits})
        work = {
            name: self._score(name, result, candidates, filter, left_s[name])
            for name, result in answered.items()
        }
        scored, failed = await gather_outcomes(work, "the scores of")
        return {**answered, **scored}, failed

    async def _score(
        self, name: str, result: SearchResult, candidates: Sequence[str], filter: Filter | None, left_s: float
    ) -> SearchResult:
        held = {hit.product_id for hit in result.hits}
        unknown = [product_id for product_id in candidates if product_id not in held]
        if not unknown:
            return result
        (embedded,) = result.embedded.values()
        model = embedded.info.name
        try:
            with Stage("score", model) as stage:
                async with asyncio.timeout(left_s):
                    scored = await self._members[name].score(embedded, unknown, filter)
        except TimeoutError:
            late = f"model {model!r} did not score {len(unknown)} candidates in the time left"
            raise DeadlineExceeded(late) from None
        hits = sorted([*result.hits, *scored], key=lambda hit: (-hit.score, hit.product_id))
        return replace(result, hits=hits, timings_ms=result.timings_ms | {"score": stage.ms})


def _fuse(
    fusion: Fusion, limit: int, answered: Results, scored: Results, weights: Mapping[str, float]
) -> list[Hit]:
    """Order products; `scored` holds the members' lists with their scores of what others have found."""
    lists = {name: result.hits for name, result in answered.items()}
    if fusion == "rrf":
        return fuse_in_steps(limit, partial(beginnings, lists), partial(fuse_rrf, weights=weights))
    scores = {name: result.hits for name, result in scored.items()}
    return fuse_in_steps(limit, partial(candidates, lists, scores), partial(fuse_weighted, weights=weights))


def _timings(results: Results) -> dict[str, float]:
    return {
        f"{name}.{stage}": ms for name, result in results.items() for stage, ms in result.timings_ms.items()
    }
