"""What each contender finds for each query, by the same search that serves."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from core.ensemble import EnsembleSearch
from core.errors import InvalidInput, Unavailable, VitrineError
from core.ports import VectorStore
from core.search import ModelSearch, Query
from core.types import Hit
from jobs.evaluation.contenders import Contender
from jobs.evaluation.encoding import EncodedInputs
from jobs.evaluation.queries import JudgedQuery

_SEARCHES_AT_ONCE = 8
_DEADLINE_S = 120.0
"""Nobody waits for these searches; only a store that hangs ends them."""

Lists = dict[str, list[Hit]]
"""Distinct products by query id, best first."""


def rank(
    contender: Contender,
    versions: Mapping[str, EncodedInputs],
    store: VectorStore,
    queries: Sequence[JudgedQuery],
    depth: int,
    check: Callable[[], None],
) -> Lists:
    """Search for each query; those that the contender cannot answer, as words for eyes only, are left out.

    `check` is called before every search, to end the work by raising.

    Raises:
        Unavailable: the store is away.
    """
    searches = {label: ModelSearch(versions[label], store) for label in contender.weights}

    async def answer(query: JudgedQuery, places: asyncio.Semaphore) -> list[Hit] | None:
        async with places:
            check()
            try:
                return await _hits(contender, searches, Query(query.parts, depth))
            except InvalidInput:
                return None

    async def answer_all() -> Lists:
        places = asyncio.Semaphore(_SEARCHES_AT_ONCE)
        found = await asyncio.gather(*(answer(query, places) for query in queries))
        return {query.query_id: hits for query, hits in zip(queries, found, strict=True) if hits is not None}

    return asyncio.run(answer_all())


async def _hits(contender: Contender, searches: Mapping[str, ModelSearch], query: Query) -> list[Hit]:
    if contender.fusion is None:
        (search,) = searches.values()
        return (await search.search(query)).hits
    ensemble = EnsembleSearch(searches, _DEADLINE_S)
    result = await ensemble.search(query, contender.weights, contender.fusion)
    if result.degraded:
        # An ensemble without a member is another ensemble: its figures would be taken for this one's.
        raise _reason(result.skipped | result.incomplete)
    return result.hits


def _reason(away: Mapping[str, str]) -> VitrineError:
    told = "; ".join(f"{name}: {message}" for name, message in away.items())
    return Unavailable(f"a member did not answer, so its ensemble was not measured ({told})")
