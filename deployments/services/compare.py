"""One query searched with several models side by side, and how far their lists agree."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from core.concurrency import gather_outcomes
from core.errors import DeadlineExceeded, InvalidInput, VitrineError, most_actionable
from core.search import ENSEMBLE, QueryVector, SearchQuery, SearchResult
from deployments.http.middleware import within_deadline
from deployments.services.encoders import EncoderSet
from deployments.services.search import ProductSearch


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two models' lists: the products that both hold, their share of the union, and the correlation of ranks."""

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


@dataclass(frozen=True, slots=True)
class Compared:
    """Lists by model in the order asked, the agreement of each two, and why other models have none."""

    lists: dict[str, SearchResult]
    agreements: list[Agreement]
    skipped: dict[str, str]
    degraded: bool


class Comparison:
    """Searches with several models at once; each encoder makes its vector of the query once."""

    def __init__(self, search: ProductSearch, encoders: EncoderSet) -> None:
        self._search = search
        self._encoders = encoders

    async def compare(self, query: SearchQuery, models: Sequence[str] | None) -> Compared:
        """Search with these models; None: with every encoder and the ensemble.

        A model that cannot answer is skipped. Options of the ensemble apply to its list alone.

        Raises:
            NotFound: there is no such model.
            VitrineError: no model could answer; the error is the one that helps the caller most.
        """
        names = self._names(models)
        if ENSEMBLE not in names and (query.weights is not None or query.fusion is not None):
            option = "fusion" if query.weights is None else "weights"
            raise InvalidInput(f"{option!r} applies to the ensemble, which is not among `models`").at(option)
        # Half of the time, so that a model which hangs does not take the lists of the others with it.
        limit_s = within_deadline(math.inf) / 2
        work = {name: self._embed(name, query, limit_s) for name in names if name != ENSEMBLE}
        embedded, failed = await gather_outcomes(work, "the search with")
        lists, unanswered = await gather_outcomes(
            {
                name: self._search.candidates(_query_for(name, query, embedded))
                for name in names
                if name not in failed
            },
            "the search with",
        )
        failed |= unanswered
        if not lists:
            raise most_actionable(failed.values())
        lists = dict(zip(lists, await self._search.pages(query, list(lists.values())), strict=True))
        pages = {name: [hit.product_id for hit in result.hits] for name, result in lists.items()}
        return Compared(
            lists,
            await asyncio.to_thread(_agreements, pages),
            {name: failed[name].message for name in names if name in failed},
            any(result.degraded for result in lists.values())
            or any(not isinstance(error, InvalidInput) for error in failed.values()),
        )

    async def _embed(self, model: str, query: SearchQuery, limit_s: float) -> QueryVector:
        try:
            async with asyncio.timeout(limit_s):
                return await self._search.embed(replace(query, model=model))
        except TimeoutError:
            late = f"model {model!r} did not embed the query within {limit_s:.3g} s"
            raise DeadlineExceeded(late) from None

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


def _query_for(name: str, query: SearchQuery, embedded: Mapping[str, QueryVector]) -> SearchQuery:
    if name == ENSEMBLE:
        return replace(query, model=name, embedded=embedded)
    return replace(query, model=name, embedded={name: embedded[name]}, weights=None, fusion=None)


def _agreements(pages: Mapping[str, Sequence[str]]) -> list[Agreement]:
    return [agreement(pair, (pages[pair[0]], pages[pair[1]])) for pair in combinations(pages, 2)]
