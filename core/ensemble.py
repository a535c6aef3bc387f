"""Search with several models at once, and fusion of what they find."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from core.calibration import matching
from core.concurrency import Absence
from core.errors import (
    DeadlineExceeded,
    Internal,
    InvalidInput,
    Unavailable,
    UnsupportedModality,
    VitrineError,
    expected,
)
from core.filters import Filter
from core.fusion import (
    beginnings,
    candidates,
    fuse_in_steps,
    fuse_rrf,
    fuse_weighted,
    fusion_depth,
    normalized_weights,
)
from core.search import ModelSearch, Query, SearchResult
from core.telemetry import Stage
from core.types import EncoderInfo, Hit


async def complete(
    members: Mapping[str, ModelSearch],
    answered: Mapping[str, SearchResult],
    filter: Filter | None,
    left_s: Mapping[str, float],
) -> tuple[dict[str, SearchResult], dict[str, VitrineError]]:
    """Let every member score all candidates: the products that any of the lists holds.

    Each member has `left_s` seconds. One that does not end in time, or fails, keeps the list it has and
    is named among the errors. A candidate without an image in a member's collection stays unscored.
    """
    candidates = sorted({hit.product_id for result in answered.values() for hit in result.hits})
    outcomes = await asyncio.gather(
        *(
            _scores(members[name], result, candidates, filter, left_s[name])
            for name, result in answered.items()
        )
    )
    completed, failed = dict(answered), {}
    for name, outcome in zip(answered, outcomes, strict=True):
        if isinstance(outcome, VitrineError):
            failed[name] = outcome
        else:
            completed[name] = outcome
    return completed, failed


async def _scores(
    member: ModelSearch,
    result: SearchResult,
    candidates: Sequence[str],
    filter: Filter | None,
    left_s: float,
) -> SearchResult | VitrineError:
    held = {hit.product_id for hit in result.hits}
    unknown = [product_id for product_id in candidates if product_id not in held]
    if not unknown:
        return result
    try:
        with Stage("score", result.info.name) as stage:
            async with asyncio.timeout(left_s):
                scored: list[Hit] = await member.score(result.embedded, unknown, filter)
    except TimeoutError:
        model = result.info.name
        return DeadlineExceeded(f"model {model!r} did not score {len(unknown)} candidates in the time left")
    except Exception as error:
        return expected(error, f"the scores of {result.info.name}")
    hits = sorted([*result.hits, *scored], key=lambda hit: (-hit.score, hit.product_id))
    return replace(result, hits=hits, timings_ms=result.timings_ms | {"score": stage.ms})


Fusion = Literal["rrf", "weighted"]
Results = Mapping[str, SearchResult]

ENSEMBLE = "ensemble"
"""The name that stands for all members together where a model is named."""


@dataclass(frozen=True, slots=True)
class EnsembleResult:
    """Fused products, best first; which versions answered, which members are away and why.

    `keyword_weight` is the share that the words' own ranking had in the order, 0 to 1. `incomplete` says
    which members took part without their scores of some candidates, and why.
    """

    hits: list[Hit]
    infos: list[EncoderInfo]
    weights: dict[str, float]
    skipped: dict[str, str]
    degraded: bool
    timings_ms: dict[str, float] = field(default_factory=dict)
    keyword_weight: float = 0.0
    incomplete: dict[str, str] = field(default_factory=dict)


class EnsembleSearch:
    """Fan out to the members in parallel, each within the deadline; fuse the answers that came."""

    def __init__(self, members: Mapping[str, ModelSearch], deadline_s: float) -> None:
        self._members = members
        self._deadline_s = deadline_s
        self._absences = {name: Absence(member.reach) for name, member in members.items()}

    async def search(self, query: Query, weights: Mapping[str, float], fusion: Fusion) -> EnsembleResult:
        """Find the `query.limit` best distinct products by the fused opinion of the members.

        Members with weight 0 are not asked. A member that cannot encode a part of the query is skipped,
        and not asked either where the query says so; one that is away, late or fails by a bug is skipped
        too and makes the answer `degraded`. Smallest scores of a match choose what is shown, not its order.

        With `weighted`, a member is asked for its score of what only others have found, in what is left
        of its time. When it cannot say, it contributes what it has and the answer is `degraded`.

        Raises:
            InvalidInput: no member has a weight above 0.
            VitrineError: no member could answer; the error is the one that tells the caller most.
        """
        wanted = [name for name in self._members if weights.get(name, 1.0) > 0]
        asked = [name for name in wanted if name not in query.not_asked]
        # The ranks of one list alone are the same however long it is.
        alone = fusion == "rrf" and len(asked) == 1
        deep = query if alone else replace(query, limit=fusion_depth(query.limit))
        outcomes = await asyncio.gather(*(self._ask(name, deep) for name in asked))
        answers = {name: answer for name, (answer, _) in zip(asked, outcomes, strict=True)}
        answered = {name: answer for name, answer in answers.items() if isinstance(answer, SearchResult)}
        failed: dict[str, VitrineError] = {
            name: UnsupportedModality(query.not_asked[name]) for name in wanted if name not in asked
        }
        failed |= {name: answer for name, answer in answers.items() if isinstance(answer, VitrineError)}
        if not answered:
            raise most_telling(failed)
        used = normalized_weights(weights, list(answered))
        scored: Results = answered
        incomplete: dict[str, VitrineError] = {}
        if fusion == "weighted":
            left_s = {name: left for name, (_, left) in zip(asked, outcomes, strict=True)}
            scored, incomplete = await complete(self._members, answered, query.filter, left_s)
        with Stage("fuse", ENSEMBLE) as stage:
            hits = _fuse(fusion, query.limit, answered, scored, used)
            if query.minimum_scores is not None:
                found = {name: (result.info.collection, result.hits) for name, result in scored.items()}
                hits = matching(hits, found, used, query.minimum_scores)
        return EnsembleResult(
            hits=hits[: query.limit],
            infos=[result.info for result in scored.values()],
            weights=used,
            skipped={name: error.message for name, error in failed.items()},
            degraded=bool(incomplete)
            or any(not isinstance(error, UnsupportedModality) for error in failed.values()),
            timings_ms=_timings(scored) | {"fuse": stage.ms},
            incomplete={name: error.message for name, error in incomplete.items()},
        )

    async def _ask(self, name: str, query: Query) -> tuple[SearchResult | VitrineError, float]:
        """Return the member's answer and how many seconds are left of its time."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._deadline_s
        absence = self._absences[name]
        if absence.lasts():
            late = f"model {name!r} did not answer lately; it is asked again meanwhile"
            return DeadlineExceeded(late), self._deadline_s
        answer: SearchResult | VitrineError
        try:
            async with asyncio.timeout_at(until):
                answer = await self._members[name].search(query)
        except TimeoutError:
            absence.begin()
            answer = DeadlineExceeded(f"model {name!r} did not answer within {self._deadline_s:g} s")
        except Exception as error:
            answer = expected(error, f"the search with {name}")
            if isinstance(answer, DeadlineExceeded):
                absence.begin()
        return answer, until - loop.time()


def _fuse(
    fusion: Fusion, limit: int, answered: Results, scored: Results, weights: Mapping[str, float]
) -> list[Hit]:
    """Order products; `scored` holds what members think, beyond what they found, of what others did."""
    lists = {name: result.hits for name, result in answered.items()}
    if fusion == "rrf":
        return fuse_in_steps(limit, partial(beginnings, lists), partial(fuse_rrf, weights=weights))
    scores = {name: result.hits for name, result in scored.items()}
    return fuse_in_steps(limit, partial(candidates, lists, scores), partial(fuse_weighted, weights=weights))


def _timings(results: Results) -> dict[str, float]:
    return {
        f"{name}.{stage}": ms for name, result in results.items() for stage, ms in result.timings_ms.items()
    }


def most_telling(failed: Mapping[str, VitrineError]) -> VitrineError:
    """What the caller can mend comes first, then what waiting can, then a bug, then what no member can do."""
    if not failed:
        return InvalidInput("no member of the ensemble has a weight above 0").at("weights")
    return min(failed.values(), key=_rank)


def _rank(error: VitrineError) -> int:
    if isinstance(error, UnsupportedModality):
        return 3
    if isinstance(error, Internal):
        return 2
    return 1 if isinstance(error, Unavailable) else 0
