"""One query searched with several models side by side, and how far their lists agree."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import TypeVar

from core.ensemble import ENSEMBLE, most_telling
from core.errors import DeadlineExceeded, InvalidInput, VitrineError, expected
from core.search import QueryPart, QueryVector
from deployments.http.limits import within_deadline
from deployments.services.encoders import EncoderSet
from deployments.services.search import Found, ProductSearch, Request


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two models' lists: how many products both hold, of how many, and the correlation of their ranks."""

    models: tuple[str, str]
    shared: int
    jaccard: float | None
    rank_correlation: float | None


def agreement(models: tuple[str, str], pages: tuple[Sequence[str], Sequence[str]]) -> Agreement:
    """Compare two lists of distinct products, best first.

    `jaccard` is shared / union, None when both are empty. `rank_correlation` is that of `correlate_ranks`.
    """
    shared, union = set(pages[0]) & set(pages[1]), set(pages[0]) | set(pages[1])
    jaccard = len(shared) / len(union) if union else None
    return Agreement(models, len(shared), jaccard, correlate_ranks(*pages))


def correlate_ranks(first: Sequence[str], second: Sequence[str]) -> float | None:
    """Kendall's tau-b of the ranks of all products that either list holds, in [-1, 1].

    A product that a list lacks is behind its last, tied with the others that it lacks, as in Fagin, Kumar
    and Sivakumar, "Comparing top k lists", SIAM J. Discrete Math. 17(1), 2003. So 1 is the same list, -1
    the reverse, and lists without a common product come to about -2/3. None where a list ranks nothing:
    it is empty, or the union is one product.
    """
    # Here, since it takes 80 MB and a second to load, and most gateways never compare.
    from scipy.stats import kendalltau

    products = list(dict.fromkeys([*first, *second]))
    if len(products) < 2 or not first or not second:
        return None
    ranks = []
    for page in (first, second):
        places = {product_id: rank for rank, product_id in enumerate(page)}
        ranks.append([places.get(product_id, len(page)) for product_id in products])
    tau = float(kendalltau(*ranks, variant="b").statistic)
    return None if math.isnan(tau) else tau


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Compared:
    """The lists by model in the order asked, how far each two agree, and which models have none and why."""

    lists: dict[str, Found]
    agreements: list[Agreement]
    skipped: dict[str, str]
    degraded: bool


class Comparison:
    """Searches with several models at once; each encoder makes its vector of the query once."""

    def __init__(self, search: ProductSearch, encoders: EncoderSet) -> None:
        self._search = search
        self._encoders = encoders

    async def compare(self, request: Request, models: Sequence[str] | None) -> Compared:
        """Search with these models; None: with every encoder and the ensemble.

        A model that cannot answer is skipped. Options of the ensemble apply to its list alone.

        Raises:
            NotFound: there is no such model.
            VitrineError: no model could answer; the error is the one that tells the caller most.
        """
        names = self._names(models)
        if ENSEMBLE not in names and (request.weights is not None or request.fusion is not None):
            option = "fusion" if request.weights is None else "weights"
            raise InvalidInput(f"{option!r} applies to the ensemble, which is not among `models`").at(option)
        # Half of the time, so that a model which hangs does not take the lists of the others with it.
        limit_s = within_deadline(math.inf) / 2
        vectors = await _outcomes(
            {name: partial(self._embed, name, request.parts, limit_s) for name in names if name != ENSEMBLE}
        )
        embedded, failed = _parted(vectors)
        outcomes = await _outcomes(
            {
                name: partial(self._search.search, _request_for(name, request, embedded))
                for name in names
                if name not in failed
            }
        )
        lists, unanswered = _parted(outcomes)
        failed |= unanswered
        if not lists:
            raise most_telling(failed)
        pages = {name: [hit.product_id for hit, _ in found.results] for name, found in lists.items()}
        return Compared(
            lists,
            await asyncio.to_thread(_agreements, pages),
            {name: failed[name].message for name in names if name in failed},
            any(found.degraded for found in lists.values())
            or any(not isinstance(error, InvalidInput) for error in failed.values()),
        )

    async def _embed(self, model: str, parts: Sequence[QueryPart], limit_s: float) -> QueryVector:
        try:
            async with asyncio.timeout(limit_s):
                return await self._search.embed(model, parts)
        except TimeoutError:
            raise DeadlineExceeded(
                f"model {model!r} did not embed the query within {limit_s:.3g} s"
            ) from None

    def _names(self, models: Sequence[str] | None) -> list[str]:
        if models is None:
            self._encoders.searchable(ENSEMBLE)
            return [*(encoder.name for encoder in self._encoders), ENSEMBLE]
        for index, name in enumerate(models):
            try:
                self._encoders.searchable(name)
            except VitrineError as error:
                raise error.at(f"models[{index}]") from None
        return list(dict.fromkeys(models))


def _request_for(name: str, request: Request, embedded: Mapping[str, QueryVector]) -> Request:
    if name == ENSEMBLE:
        return replace(request, model=name, embedded=embedded)
    return replace(request, model=name, embedded={name: embedded[name]}, weights=None, fusion=None)


def _agreements(pages: Mapping[str, Sequence[str]]) -> list[Agreement]:
    return [agreement(pair, (pages[pair[0]], pages[pair[1]])) for pair in combinations(pages, 2)]


async def _outcomes(work: Mapping[str, Callable[[], Awaitable[T]]]) -> dict[str, T | VitrineError]:
    answers = await asyncio.gather(*(_outcome(name, each) for name, each in work.items()))
    return dict(zip(work, answers, strict=True))


async def _outcome(model: str, work: Callable[[], Awaitable[T]]) -> T | VitrineError:
    # Begun here, so that a caller who goes away sooner leaves nothing half begun.
    try:
        return await work()
    except Exception as error:
        return expected(error, f"the search with {model}")


def _parted(outcomes: Mapping[str, T | VitrineError]) -> tuple[dict[str, T], dict[str, VitrineError]]:
    """Tell answers from errors."""
    failed = {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, VitrineError)}
    answered = {name: outcome for name, outcome in outcomes.items() if not isinstance(outcome, VitrineError)}
    return answered, failed
