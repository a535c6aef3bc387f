"""Searching: what a caller asks for, answered with products that exist now."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

from catalog.opening import Catalog
from core.ensemble import ENSEMBLE, EnsembleResult, Fusion
from core.hybrid import HybridSearch
from core.matching import matching
from core.ports import VectorStore
from core.search import ModelSearch, Query, QueryPart, QueryVector
from core.stages import Stage
from core.store_check import StoreCheck
from core.types import Hit, Product
from deployments.current_products import CurrentProducts
from deployments.encoders import EncoderSet, modalities
from deployments.lexical_config import LexicalConfig
from deployments.request_record import note_model
from deployments.search_request import Found, Request, to_encode
from deployments.thresholds import Thresholds

SPARES = (0, 64, 512, 4096)
"""Products asked for beyond the page, round by round, while rows of vanished products turn up in it."""


class Ensemble(Protocol):
    """The ensemble combiner, near or behind a Serve handle."""

    async def search(
        self, query: Query, weights: Mapping[str, float] | None, fusion: Fusion | None
    ) -> EnsembleResult:
        """Search with all members and fuse."""
        ...


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
        check: StoreCheck,
    ) -> None:
        self._current = CurrentProducts(catalog.products)
        self._encoders = encoders
        self._ensemble = ensemble
        self._hybrid = HybridSearch(catalog.lexical, lexical.deadline_s)
        self._words_weight = lexical.weight
        self._thresholds = thresholds
        self._check = check
        self._searches = {encoder.name: ModelSearch(encoder, store) for encoder in encoders}

    async def search(self, request: Request) -> Found:
        """Find products.

        Raises:
            VitrineError: as `ModelSearch.search` and `EnsembleSearch.search`.
        """
        self._encoders.searchable(request.model)
        request.check()
        note_model(request.model)
        minimum_scores = await self._minimum_scores(request)
        query = Query(
            request.parts,
            request.offset + request.limit,
            request.filter,
            request.exclude_products,
            minimum_scores,
            request.embedded,
        )
        answer, existing = await self._existing(query, request)
        smallest = minimum_scores or {}
        return Found(
            existing[request.offset :],
            answer.infos,
            answer.weights,
            answer.skipped,
            answer.degraded,
            answer.timings_ms,
            answer.lexical_weight,
            {info.name: smallest[info.collection] for info in answer.infos if info.collection in smallest},
            answer.incomplete,
        )

    async def embed(self, model: str, parts: Sequence[QueryPart]) -> QueryVector:
        """Make one encoder's vector of a query, for searches that are `embedded` by it.

        Raises:
            VitrineError: as `ModelSearch.embed`.
        """
        await self._encoders.require(model, to_encode(parts))
        return await self._searches[model].embed(parts)

    async def _existing(
        self, query: Query, request: Request
    ) -> tuple[EnsembleResult, list[tuple[Hit, Product]]]:
        """Search until `query.limit` products are found that still exist, as far as there are so many."""
        wanted = query.limit
        for spare in SPARES:
            query = replace(query, limit=wanted + spare)
            answer = await self._ask(query, request)
            with Stage("hydrate", request.model) as stage:
                kept, gone = await self._current.of(answer.hits, request.filter)
            if not gone or len(answer.hits) < query.limit:
                break
            query = replace(query, exclude_products=(*query.exclude_products, *gone))
        return replace(answer, timings_ms=answer.timings_ms | {"hydrate": stage.ms}), kept[:wanted]

    async def _ask(self, query: Query, request: Request) -> EnsembleResult:
        by_vectors = partial(self._by_vectors, request)
        share = request.share_of_words(self._words_weight)
        if share == 0:
            return await by_vectors(query)
        return await self._hybrid.search(query, share, request.model, by_vectors)

    async def _by_vectors(self, request: Request, query: Query) -> EnsembleResult:
        # Another Milvus would answer with nothing, or with products of somebody else.
        if not self._check.is_known:
            await asyncio.to_thread(self._check.require)
        if not self._encoders.searchable(request.model):
            unable = await self._encoders.unable(modalities(to_encode(query.parts)))
            # What a model has made of the query already needs no encoder.
            unable = {name: why for name, why in unable.items() if name not in query.embedded}
            query = replace(query, not_asked=unable)
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
            await self._encoders.require(request.model, to_encode(request.parts))
        return await self._thresholds.minimum_scores(request.threshold, request.model, request.parts, without)
