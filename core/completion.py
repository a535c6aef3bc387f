"""What each member of an ensemble thinks of the products that only others have found."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from core.errors import DeadlineExceeded, VitrineError, expected
from core.filters import Filter
from core.search import ModelSearch, SearchResult
from core.stages import Stage
from core.types import Hit


async def complete(
    members: Mapping[str, ModelSearch],
    answered: Mapping[str, SearchResult],
    filter: Filter | None,
    left_s: Mapping[str, float],
) -> tuple[dict[str, SearchResult], dict[str, VitrineError]]:
    """Let every member score all candidates: the products that any of the lists holds.

    Each member has `left_s` seconds. One that does not end in time, or fails, keeps the list it has and
    is named among the errors. A candidate without a picture in a member's collection stays unscored.
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
