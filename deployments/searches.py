"""Searching: what a caller asks for, answered with products that exist now."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from catalog.opening import Catalog
from core.ensemble import ENSEMBLE, EnsembleResult, Fusion
from core.errors import InvalidInput
from core.filters import Filter, matches
from core.hybrid import HybridSearch, is_words_only, positive_words
from core.matching import matching
from core.ports import VectorStore
from core.search import ModelSearch, Query, QueryPart, QueryVector, StoredPart
from core.stages import Stage
from core.types import EncoderInfo, Hit, Product
from deployments.encoders import EncoderSet
from deployments.lexical_config import LexicalConfig
from deployments.request_record import note_model
from deployments.thresholds import Threshold, Thresholds

SPARES = (0, 64, 512, 4096)
"""Products asked for beyond the page, round by round, while rows of vanished products turn up in it."""


class Ensemble(Protocol):
    """The ensemble combiner, near or behind a Serve handle."""

    async def search(
        self, query: Query, weights: Mapping[str, float] | None, fusion: Fusion | None
    ) -> EnsembleResult:
        """Search with all members and fuse."""
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """A search as the caller means it: parts, a model or the ensemble, and a page."""

    parts: tuple[QueryPart, ...]
    model: str = ENSEMBLE
    limit: int = 10
    offset: int = 0
    filter: Filter | None = None
    exclude_products: tuple[str, ...] = ()
    weights: Mapping[str, float] | None = None
    fusion: Fusion | None = None
    lexical_weight: float | None = None
    threshold: Threshold = field(default_factory=Threshold)
    embedded: Mapping[str, QueryVector] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Found:
    """A page of products, best first, and how it came about."""

    results: list[tuple[Hit, Product]]
    infos: list[EncoderInfo]
    weights: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    degraded: bool = False
    timings_ms: dict[str, float] = field(default_factory=dict)
    lexical_weight: float = 0.0
    thresholds: dict[str, float] = field(default_factory=dict)
    incomplete: dict[str, str] = field(default_factory=dict)


class ProductSearch:
    """Search by one model or the ensemble; every page is full when the catalog has the products."""

    def __init__(
        self,
        catalog: Catalog,
        store: VectorStore,
        encoders: EncoderSet,
        ensemble: Ensemble,
        lexical: LexicalConfig,
        thresholds: Thresholds,
    ) -> None:
        self._catalog = catalog
        self._encoders = encoders
        self._ensemble = ensemble
        self._hybrid = HybridSearch(catalog.lexical, lexical.deadline_s)
        self._words_weight = lexical.weight
        self._thresholds = thresholds
        self._searches = {encoder.name: ModelSearch(encoder, store) for encoder in encoders}

    async def search(self, request: Request) -> Found:
        """Find products.

        Raises:
            VitrineError: as `ModelSearch.search` and `EnsembleSearch.search`.
        """
        lexical_weight = self._check(request)
        note_model(request.model)
        wanted = request.offset + request.limit
        minimum_scores = await self._minimum_scores(request)
        query = Query(
            request.parts, wanted, request.filter, request.exclude_products, minimum_scores, request.embedded
        )
        for spare in SPARES:
            query = replace(query, limit=wanted + spare)
            answer = await self._ask(query, request, lexical_weight)
            with Stage("hydrate", request.model) as stage:
                kept, gone = await self._hydrate(answer.hits, request.filter)
            if not gone or len(answer.hits) < query.limit:
                break
            query = replace(query, exclude_products=(*query.exclude_products, *gone))
        timings = answer.timings_ms | {"hydrate": stage.ms}
        return Found(
            kept[request.offset : wanted],
            answer.infos,
            answer.weights,
            answer.skipped,
            answer.degraded,
            timings,
            answer.lexical_weight,
            {i.name: minimum_scores[i.collection] for i in answer.infos if i.collection in minimum_scores}
            if minimum_scores
            else {},
            answer.incomplete,
        )

    async def embed(self, model: str, parts: Sequence[QueryPart]) -> QueryVector:
        """Make one encoder's vector of a query, for searches that are `embedded` by it.

        Raises:
            VitrineError: as `ModelSearch.embed`.
        """
        fresh = [part.content for part in parts if not isinstance(part.content, StoredPart)]
        await self._encoders.require(model, fresh)
        return await self._searches[model].embed(parts)

    def _check(self, request: Request) -> float:
        """Check what the options apply to, and return the share of the ranking by words."""
        if self._encoders.searchable(request.model):
            for option, value in (("weights", request.weights), ("fusion", request.fusion)):
                if value is not None:
                    message = f"{option!r} applies to the ensemble only, not to model {request.model!r}"
                    raise InvalidInput(message).at(option)
        request.threshold.check(request.model)
        if request.threshold:
            if request.lexical_weight:
                raise InvalidInput("a threshold is about vectors: leave `lexical_weight` out, or 0").at(
                    "lexical_weight"
                )
            return 0.0
        if request.lexical_weight is None:
            # Pictures and stored products say what to look for better than the words beside them.
            by_words = request.model == ENSEMBLE and is_words_only(request.parts)
            return self._words_weight if by_words else 0.0
        if request.lexical_weight > 0 and not positive_words(request.parts):
            raise InvalidInput("a lexical weight needs words of a positive weight in the query").at(
                "lexical_weight"
            )
        return request.lexical_weight

    async def _ask(self, query: Query, request: Request, lexical_weight: float) -> EnsembleResult:
        by_vectors = partial(self._by_vectors, request)
        if lexical_weight == 0:
            return await by_vectors(query)
        return await self._hybrid.search(query, lexical_weight, request.model, by_vectors)

    async def _by_vectors(self, request: Request, query: Query) -> EnsembleResult:
        if not self._encoders.searchable(request.model):
            return await self._ensemble.search(query, request.weights, request.fusion)
        embedded = query.embedded.get(request.model) or await self.embed(request.model, query.parts)
        result = await self._searches[request.model].search(
            replace(query, embedded={request.model: embedded})
        )
        hits = result.hits
        if query.minimum_scores is not None:
            found = {request.model: (result.info.collection, result.hits)}
            hits = matching(hits, found, {request.model: 1.0}, query.minimum_scores)
        return EnsembleResult(hits, [result.info], {request.model: 1.0}, {}, False, result.timings_ms)

    async def _minimum_scores(self, request: Request) -> dict[str, float] | None:
        if not request.threshold:
            return None
        without = [name for name, weight in (request.weights or {}).items() if weight == 0]
        if request.model != ENSEMBLE:
            fresh = [part.content for part in request.parts if not isinstance(part.content, StoredPart)]
            await self._encoders.require(request.model, fresh)
        return await self._thresholds.minimum_scores(request.threshold, request.model, request.parts, without)

    async def _hydrate(
        self, hits: Sequence[Hit], filter: Filter | None
    ) -> tuple[list[tuple[Hit, Product]], list[str]]:
        """Join hits with the catalog; a hit that the catalog no longer supports is not shown."""
        products = await asyncio.to_thread(self._catalog.products.get_many, [hit.product_id for hit in hits])
        kept: list[tuple[Hit, Product]] = []
        gone: list[str] = []
        for hit in hits:
            product = products.get(hit.product_id)
            if product is not None and _still_true(hit, product, filter):
                kept.append((hit, product))
            else:
                gone.append(hit.product_id)
        return kept, gone


def _still_true(hit: Hit, product: Product, filter: Filter | None) -> bool:
    has_picture = any(picture.image_id == hit.image_id for picture in product.pictures)
    return has_picture and (filter is None or matches(filter, product.attributes))
