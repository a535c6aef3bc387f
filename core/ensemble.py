"""Search with several models at once and fuse what they find."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from core.errors import (
    DeadlineExceeded,
    InvalidInput,
    Unavailable,
    UnsupportedModality,
    VitrineError,
)
from core.fusion import fuse_rrf, fuse_weighted, normalised_weights
from core.search import ModelSearch, Query, SearchResult
from core.types import EncoderInfo, Hit

Fusion = Literal["rrf", "weighted"]
MINIMUM_DEPTH = 64
"""Products asked of each member at least: fusion is poor when lists barely overlap."""


@dataclass(frozen=True, slots=True)
class EnsembleResult:
    """Fused products, best first; which versions answered, which members are away and why."""

    hits: list[Hit]
    infos: list[EncoderInfo]
    weights: dict[str, float]
    skipped: dict[str, str]
    degraded: bool
    timings_ms: dict[str, float] = field(default_factory=dict)


class EnsembleSearch:
    """Fan out to the members in parallel, each within the deadline; fuse the answers that came."""

    def __init__(self, members: Mapping[str, ModelSearch], deadline_s: float) -> None:
        self._members = members
        self._deadline_s = deadline_s

    async def search(self, query: Query, weights: Mapping[str, float], fusion: Fusion) -> EnsembleResult:
        """Find the `query.limit` best distinct products by the fused opinion of the members.

        Members with weight 0 are not asked. A member that cannot encode a part of the query is skipped;
        one that is away or late is skipped too and makes the answer `degraded`.

        Raises:
            InvalidInput: no member has a weight above 0.
            VitrineError: no member could answer; the error is the one that tells the caller most.
        """
        deep = replace(query, limit=_depth(query.limit))
        asked = [name for name in self._members if weights.get(name, 1.0) > 0]
        answers = await asyncio.gather(*(self._ask(name, deep) for name in asked))
        answered = {name: a for name, a in zip(asked, answers, strict=True) if isinstance(a, SearchResult)}
        failed = {name: a for name, a in zip(asked, answers, strict=True) if isinstance(a, VitrineError)}
        if not answered:
            raise _most_telling(failed)
        used = normalised_weights(weights, list(answered))
        started = time.perf_counter()
        fuse = fuse_rrf if fusion == "rrf" else fuse_weighted
        hits = fuse({name: result.hits for name, result in answered.items()}, used)[: query.limit]
        timings = {
            f"{name}.{stage}": ms
            for name, result in answered.items()
            for stage, ms in result.timings_ms.items()
        }
        return EnsembleResult(
            hits=hits,
            infos=[result.info for result in answered.values()],
            weights=used,
            skipped={name: error.message for name, error in failed.items()},
            degraded=any(not isinstance(error, UnsupportedModality) for error in failed.values()),
            timings_ms=timings | {"fuse": (time.perf_counter() - started) * 1e3},
        )

    async def _ask(self, name: str, query: Query) -> SearchResult | VitrineError:
        try:
            async with asyncio.timeout(self._deadline_s):
                return await self._members[name].search(query)
        except TimeoutError:
            return DeadlineExceeded(f"model {name!r} did not answer within {self._deadline_s:g} s")
        except VitrineError as error:
            return error


def _depth(limit: int) -> int:
    """Grow in steps: ranks would change between pages if each page fused lists of its own length."""
    depth = MINIMUM_DEPTH
    while depth < 2 * limit:
        depth *= 4
    return depth


def _most_telling(failed: Mapping[str, VitrineError]) -> VitrineError:
    """What the caller can mend comes first, then what waiting can mend, then what no member can do."""
    if not failed:
        return InvalidInput("no member of the ensemble has a weight above 0").at("weights")
    return min(failed.values(), key=_rank)


def _rank(error: VitrineError) -> int:
    if isinstance(error, UnsupportedModality):
        return 2
    return 1 if isinstance(error, Unavailable) else 0
