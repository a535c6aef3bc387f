"""Search for products: thresholds, parts from the catalog, and hits joined with the products as they are now."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Protocol

from catalog.opening import Catalog
from core.calibration import Form, NullSamples
from core.concurrency import gather_outcomes
from core.ensemble import HybridSearch
from core.errors import Conflict
from core.filters import Filter, matches
from core.ports import EncoderClient, VectorStore
from core.rerank import Rerank, match_images, rerank_hits
from core.search import ENSEMBLE, ModelSearch, QueryVector, SearchQuery, SearchResult, StoredPart
from core.store_check import StoreCheck
from core.telemetry import Stage
from core.types import Hit, Product, row_key
from deployments.config import KeywordSearchConfig
from deployments.http.middleware import within_deadline
from deployments.observability.telemetry import note_model
from deployments.services.encoders import EncoderSet, modalities


class StoredParts:
    """Products and images of the catalog to search by; their vectors are in the collections."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def product(self, product_id: str) -> StoredPart:
        """Refer to a product of the catalog, by all its images, as a part of a query.

        Raises:
            NotFound: there is no such product.
            Conflict: it has no image.
        """
        product = await asyncio.to_thread(self._catalog.products.get, product_id)
        if not product.images:
            raise Conflict(f"product {product_id!r} has no image to search by")
        keys = tuple(row_key(image.image_id, image.revision) for image in product.images)
        return StoredPart(f"product {product_id!r}", product_id, keys)

    async def image(self, image_id: str) -> StoredPart:
        """Refer to one image of the catalog as a part of a query.

        Raises:
            NotFound: there is no such image.
        """
        image = await asyncio.to_thread(self._catalog.products.image, image_id)
        key = row_key(image.image_id, image.revision)
        return StoredPart(f"image {image_id!r}", image.product_id, (key,))


SPARES = (0, 64, 512, 4096)
"""Products asked for beyond the page, round by round, while rows of vanished products turn up in it."""
_RERANK_SHARE = 0.9
"""Share of the request's time that re-ranking may take, so that some is left for the answer."""


class Ensemble(Protocol):
    """Ensemble, near or behind a Serve handle."""

    async def search(self, query: SearchQuery) -> SearchResult:
        """Search with all members and fuse; weights and fusion default to the configuration."""
        ...


class ProductSearch:
    """Search by one model or the ensemble; every page is full when the catalog has the products."""

    def __init__(
        self,
        catalog: Catalog,
        store: VectorStore,
        encoders: EncoderSet,
        ensemble: Ensemble,
        keyword: KeywordSearchConfig,
        samples: NullSamples,
        check: StoreCheck,
        rerank_deadline_s: float,
    ) -> None:
        self._products, self._blobs = catalog.products, catalog.blobs
        self._rerank_deadline_s = rerank_deadline_s
        self._encoders = encoders
        self._ensemble = ensemble
        self._hybrid = HybridSearch(self._by_vectors, catalog.keyword_index, keyword.deadline_s)
        self._keyword_weight = keyword.weight
        self._samples = samples
        self._check = check
        self._searches = {encoder.name: ModelSearch(encoder, store) for encoder in encoders}

    async def search(self, query: SearchQuery) -> SearchResult:
        """Find a page of products.

        Raises:
            VitrineError: as `ModelSearch.search` and `EnsembleSearch.search`.
            InvalidInput: the query asks for re-ranking by what cannot do it.
        """
        (page,) = await self.pages(query, [await self.candidates(query)])
        return page

    async def pages(self, query: SearchQuery, found: Sequence[SearchResult]) -> list[SearchResult]:
        """Cut the page out of each list of candidates, in the order of the second stage where there is one.

        An image that several lists hold is scored once.

        Raises:
            InvalidInput: the query asks for re-ranking by what cannot do it.
        """
        if query.rerank is not None:
            found = await self._reranked(query, query.rerank, found)
        end = query.offset + query.limit
        return [replace(each, hits=each.hits[query.offset : end]) for each in found]

    async def candidates(self, query: SearchQuery) -> SearchResult:
        """Find the products up to the end of the page, or as many as the second stage orders.

        Raises:
            VitrineError: as `search`.
        """
        self._encoders.searchable(query.model)
        query.check()
        note_model(query.model)
        smallest = await self._minimum_scores(query)
        deep = replace(
            query,
            limit=query.depth,
            offset=0,
            rerank=None,
            keyword_weight=self._keyword_share(query),
            minimum_scores=smallest,
        )
        result = await self._existing(deep)
        thresholds = {
            version.name: smallest[version.collection]
            for version in result.versions
            if smallest is not None and version.collection in smallest
        }
        return replace(result, thresholds=thresholds)

    async def embed(self, query: SearchQuery) -> QueryVector:
        """Make the vector of `query.model`, which is no ensemble, for searches that are `embedded` by it.

        Raises:
            VitrineError: as `ModelSearch.embed`.
        """
        await self._encoders.require(query.model, query.inputs)
        return await self._searches[query.model].embed(query)

    async def _minimum_scores(self, query: SearchQuery) -> dict[str, float] | None:
        """Return the smallest cosine that counts as a match, by collection; None where no threshold is given.

        For the ensemble each member gets half of the rate, since `core.calibration` takes a majority. A member that
        cannot be calibrated, or cannot encode a part, has no entry, so it calls nothing a match.

        Raises:
            Conflict: no model can keep the rate.
            VitrineError: no model answers.
        """
        if not query.has_threshold:
            return None
        form: Form = tuple(
            (("text" if isinstance(part.content, str) else "image"), part.weight) for part in query.parts
        )
        rate = query.max_false_match_rate or 0.0
        if query.model != ENSEMBLE:
            encoder = self._encoders.get(query.model)
            await self._encoders.require(query.model, query.inputs)
            if query.score_threshold is not None:
                return {(await encoder.describe()).collection: query.score_threshold}
            return dict([await self._samples.smallest_match(encoder, form, rate)])
        needed = {modality for modality, _ in form}
        unwanted = {name for name, weight in (query.weights or {}).items() if weight == 0}
        unwanted |= (await self._encoders.unable(needed)).keys()

        async def smallest_match(member: EncoderClient) -> tuple[str, float] | None:
            if not needed <= set((await member.describe()).modalities):
                return None
            return await self._samples.smallest_match(member, form, rate / 2)

        found, failed = await gather_outcomes(
            {each.name: smallest_match(each) for each in self._encoders if each.name not in unwanted},
            "the calibration of",
        )
        smallest = dict(each for each in found.values() if each is not None)
        if not smallest and failed:
            errors = list(failed.values())
            raise next((each for each in errors if isinstance(each, Conflict)), errors[0])
        return smallest

    def _keyword_share(self, query: SearchQuery) -> float:
        if query.has_threshold:
            return 0.0
        if query.keyword_weight is not None:
            return query.keyword_weight
        # Images and stored products say what to look for better than the text beside them.
        return self._keyword_weight if query.model == ENSEMBLE and query.is_text_only else 0.0

    async def _existing(self, query: SearchQuery) -> SearchResult:
        """Search until `query.limit` products are found that still exist, as far as there are so many."""
        excluded, embedded = query.exclude_products, query.embedded
        for spare in SPARES:
            depth = query.limit + spare
            result = await self._hybrid.search(
                replace(query, limit=depth, exclude_products=excluded, embedded=embedded)
            )
            with Stage("hydrate", query.model) as stage:
                products = await self._current(result.hits, query.filter)
            gone = [hit.product_id for hit in result.hits if hit.product_id not in products]
            if not gone or len(result.hits) < depth:
                break
            excluded, embedded = (*excluded, *gone), {**embedded, **result.embedded}
        return replace(
            result,
            hits=[hit for hit in result.hits if hit.product_id in products][: query.limit],
            products=products,
            timings_ms=result.timings_ms | {"hydrate": stage.ms},
        )

    async def _current(self, hits: Sequence[Hit], filter: Filter | None) -> dict[str, Product]:
        """Read the products of the hits, by id, without those that no longer support their hit."""
        found = await asyncio.to_thread(self._products.get_many, [hit.product_id for hit in hits])
        return {
            hit.product_id: found[hit.product_id]
            for hit in hits
            if hit.product_id in found and _supports(found[hit.product_id], hit, filter)
        }

    async def _reranked(
        self, query: SearchQuery, rerank: Rerank, found: Sequence[SearchResult]
    ) -> list[SearchResult]:
        images = [
            {hit.product_id: _sha256(each.products[hit.product_id], hit) for hit in each.hits}
            for each in found
        ]
        # The first of every list come first, for time may run out. Pages behind the second stage need no scores.
        depth = rerank.depth if query.offset < rerank.depth else 0
        by_rank = zip_longest(*(list(of_list.values())[:depth] for of_list in images))
        wanted = list(dict.fromkeys(each for rank in by_rank for each in rank if each is not None))
        limit_s = min(self._rerank_deadline_s, _RERANK_SHARE * within_deadline(math.inf))
        with Stage("rerank", rerank.model) as stage:
            matcher = self._encoders.matcher(rerank.model)
            matches = await match_images(matcher, query.text, wanted, self._blobs.get, limit_s)
        results = []
        for each, of_list in zip(found, images, strict=True):
            hits, outcome = rerank_hits(each.hits, replace(rerank, depth=depth), of_list, matches)
            results.append(
                replace(
                    each,
                    hits=hits,
                    reranked=replace(outcome, rerank=rerank),
                    degraded=each.degraded or bool(outcome.skipped),
                    timings_ms=each.timings_ms | {"rerank": stage.ms},
                )
            )
        return results

    async def _by_vectors(self, query: SearchQuery) -> SearchResult:
        # Another Milvus would answer with nothing, or with products of somebody else.
        if not self._check.is_known:
            await asyncio.to_thread(self._check.require)
        if query.model == ENSEMBLE:
            unable = await self._encoders.unable(modalities(query.inputs))
            # A model whose vector of the query is known needs to encode nothing.
            unable = {name: why for name, why in unable.items() if name not in query.embedded}
            return await self._ensemble.search(replace(query, not_asked=unable))
        if query.model not in query.embedded:
            await self._encoders.require(query.model, query.inputs)
        return await self._searches[query.model].search(query)


def _sha256(product: Product, hit: Hit) -> str:
    return next(image.sha256 for image in product.images if image.image_id == hit.image_id)


def _supports(product: Product, hit: Hit, filter: Filter | None) -> bool:
    has_image = any(image.image_id == hit.image_id for image in product.images)
    return has_image and (filter is None or matches(filter, product.attributes))
