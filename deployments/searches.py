"""Searching: what a caller asks for, answered with products that exist now."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from catalog.opening import Catalog
from core.ensemble import EnsembleResult, Fusion
from core.errors import Conflict, InvalidInput
from core.filters import Filter, matches
from core.ports import VectorStore
from core.search import ModelSearch, Query, QueryPart, StoredPart
from core.types import EncoderInfo, Hit, Product, row_key
from deployments.encoders import EncoderSet

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
    model: str
    limit: int = 10
    offset: int = 0
    filter: Filter | None = None
    exclude_products: tuple[str, ...] = ()
    weights: Mapping[str, float] | None = None
    fusion: Fusion | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A page of products, best first, and how it came about."""

    results: list[tuple[Hit, Product]]
    infos: list[EncoderInfo]
    weights: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    degraded: bool = False
    timings_ms: dict[str, float] = field(default_factory=dict)


class ProductSearch:
    """Search by one model or the ensemble; every page is full when the catalog has the products."""

    def __init__(
        self, catalog: Catalog, store: VectorStore, encoders: EncoderSet, ensemble: Ensemble
    ) -> None:
        self._catalog = catalog
        self._encoders = encoders
        self._ensemble = ensemble
        self._searches = {encoder.name: ModelSearch(encoder, store) for encoder in encoders}

    async def search(self, request: Request) -> Found:
        """Find products.

        Raises:
            VitrineError: as `ModelSearch.search` and `EnsembleSearch.search`.
        """
        await self._check(request)
        wanted = request.offset + request.limit
        query = Query(request.parts, wanted, request.filter, request.exclude_products)
        for spare in SPARES:
            query = replace(query, limit=wanted + spare)
            answer = await self._ask(query, request)
            started = time.perf_counter()
            kept, gone = await self._hydrate(answer.hits, request.filter)
            if not gone or len(answer.hits) < query.limit:
                break
            query = replace(query, exclude_products=(*query.exclude_products, *gone))
        timings = answer.timings_ms | {"hydrate": (time.perf_counter() - started) * 1e3}
        return Found(
            kept[request.offset : wanted],
            answer.infos,
            answer.weights,
            answer.skipped,
            answer.degraded,
            timings,
        )

    async def stored_part(self, product_id: str) -> StoredPart:
        """Refer to a product of the catalog as a part of a query.

        Raises:
            NotFound: there is no such product.
            Conflict: it has no picture.
        """
        product = await asyncio.to_thread(self._catalog.products.get, product_id)
        if not product.pictures:
            raise Conflict(f"product {product_id!r} has no picture to search by")
        keys = tuple(row_key(picture.image_id, picture.revision) for picture in product.pictures)
        return StoredPart(f"product {product_id!r}", keys)

    async def _check(self, request: Request) -> None:
        if self._encoders.searchable(request.model):
            for option, value in (("weights", request.weights), ("fusion", request.fusion)):
                if value is not None:
                    message = f"{option!r} applies to the ensemble only, not to model {request.model!r}"
                    raise InvalidInput(message).at(option)
            fresh = [part.content for part in request.parts if not isinstance(part.content, StoredPart)]
            await self._encoders.require(request.model, fresh)

    async def _ask(self, query: Query, request: Request) -> EnsembleResult:
        if self._encoders.searchable(request.model):
            result = await self._searches[request.model].search(query)
            return EnsembleResult(
                result.hits, [result.info], {request.model: 1.0}, {}, False, result.timings_ms
            )
        return await self._ensemble.search(query, request.weights, request.fusion)

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
