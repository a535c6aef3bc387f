"""Search by one model or the ensemble: request, thresholds, hits joined with the catalog, result."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from catalog.opening import Catalog
from catalog.products import SqlProducts
from core.calibration import Form, NullSamples, matching
from core.ensemble import ENSEMBLE, EnsembleResult, Fusion
from core.errors import Conflict, InvalidInput, VitrineError, expected
from core.filters import Filter, matches
from core.hybrid import HybridSearch, is_words_only, positive_words
from core.ports import EncoderClient, VectorStore
from core.search import ModelSearch, Query, QueryPart, QueryVector, StoredPart
from core.store_check import StoreCheck
from core.telemetry import Stage
from core.types import EncoderInfo, EncoderInput, Hit, Product, row_key
from deployments.config import KeywordSearchConfig
from deployments.observability.request_context import note_model
from deployments.services.encoders import EncoderSet, modalities


@dataclass(frozen=True, slots=True)
class Threshold:
    """What a caller asks for: a cosine of one model, or a rate at which unrelated queries find anything."""

    score: float | None = None
    max_false_match_rate: float | None = None

    def __bool__(self) -> bool:
        """Tell whether anything is asked for."""
        return self.score is not None or self.max_false_match_rate is not None

    def check(self, model: str) -> None:
        """Refuse both at once, and a cosine for the ensemble.

        Raises:
            InvalidInput: as said.
        """
        if self.score is None:
            return
        if self.max_false_match_rate is not None:
            raise InvalidInput("give either `score_threshold` or `max_false_match_rate`").at(
                "score_threshold"
            )
        if model == ENSEMBLE:
            raise InvalidInput(
                "cosines of different models cannot share a threshold; name one `model`, or give "
                "`max_false_match_rate`, which the ensemble takes too"
            ).at("score_threshold")


class Thresholds:
    """Turns thresholds into smallest cosines by collection."""

    def __init__(self, encoders: EncoderSet, samples: NullSamples) -> None:
        self._encoders = encoders
        self._samples = samples

    async def minimum_scores(
        self, threshold: Threshold, model: str, parts: Sequence[QueryPart], without: Sequence[str]
    ) -> dict[str, float]:
        """The smallest cosine that counts as a match, by collection; `without` are members not to ask.

        For the ensemble each member gets half of the rate, since `core.calibration` takes a majority; a
        member that cannot be calibrated has no entry, so it calls nothing a match.

        Raises:
            Conflict: no model can keep the rate.
            VitrineError: no model answers.
        """
        if threshold.score is not None:
            return {(await self._encoders.get(model).describe()).collection: threshold.score}
        assert threshold.max_false_match_rate is not None
        form: Form = tuple((("text" if isinstance(p.content, str) else "image"), p.weight) for p in parts)
        if model != ENSEMBLE:
            rate = threshold.max_false_match_rate
            return dict([await self._samples.smallest_match(self._encoders.get(model), form, rate)])
        unable = await self._encoders.unable(modality for modality, _ in form)
        asked = [each for each in self._encoders if each.name not in without and each.name not in unable]
        rate = threshold.max_false_match_rate / 2
        outcomes = await asyncio.gather(*(self._member(encoder, form, rate) for encoder in asked))
        found = dict(each for each in outcomes if isinstance(each, tuple))
        errors = [each for each in outcomes if isinstance(each, VitrineError)]
        if not found and errors:
            raise next((each for each in errors if isinstance(each, Conflict)), errors[0])
        return found

    async def _member(
        self, encoder: EncoderClient, form: Form, rate: float
    ) -> tuple[str, float] | VitrineError | None:
        try:
            can = (await encoder.describe()).modalities
            if any(modality not in can for modality, _ in form):
                return None
            return await self._samples.smallest_match(encoder, form, rate)
        except Exception as error:
            return expected(error, f"the calibration of {encoder.name}")


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
    keyword_weight: float | None = None
    threshold: Threshold = field(default_factory=Threshold)
    embedded: Mapping[str, QueryVector] = field(default_factory=dict)

    def check(self) -> None:
        """Refuse options that do not apply to what is asked.

        Raises:
            InvalidInput: options of the ensemble for one model, a threshold that is none, a keyword weight
                beside a threshold or without words.
        """
        if self.model != ENSEMBLE:
            for option, value in (("weights", self.weights), ("fusion", self.fusion)):
                if value is not None:
                    message = f"{option!r} applies to the ensemble only, not to model {self.model!r}"
                    raise InvalidInput(message).at(option)
        self.threshold.check(self.model)
        if not self.keyword_weight:
            return
        if self.threshold:
            message = "a threshold is about vectors: leave `keyword_weight` out, or 0"
            raise InvalidInput(message).at("keyword_weight")
        if not positive_words(self.parts):
            message = "a keyword weight needs words of a positive weight in the query"
            raise InvalidInput(message).at("keyword_weight")

    def share_of_words(self, configured: float) -> float:
        """The share of the ranking by words: what is asked for, else what is configured where it applies."""
        if self.threshold:
            return 0.0
        if self.keyword_weight is not None:
            return self.keyword_weight
        # Images and stored products say what to look for better than the words beside them.
        return configured if self.model == ENSEMBLE and is_words_only(self.parts) else 0.0


def to_encode(parts: Sequence[QueryPart]) -> list[EncoderInput]:
    """What a model has to encode of a query: the parts that the catalog does not hold already."""
    return [part.content for part in parts if not isinstance(part.content, StoredPart)]


@dataclass(frozen=True, slots=True)
class Found:
    """A page of products, best first, and how it came about."""

    results: list[tuple[Hit, Product]]
    infos: list[EncoderInfo]
    weights: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    degraded: bool = False
    timings_ms: dict[str, float] = field(default_factory=dict)
    keyword_weight: float = 0.0
    thresholds: dict[str, float] = field(default_factory=dict)
    incomplete: dict[str, str] = field(default_factory=dict)


class CurrentProducts:
    """Joins hits with the catalog; one that the catalog no longer supports is not shown."""

    def __init__(self, products: SqlProducts) -> None:
        self._products = products

    async def of(
        self, hits: Sequence[Hit], filter: Filter | None
    ) -> tuple[list[tuple[Hit, Product]], list[str]]:
        """Return the hits with their products, in order, and the ids of those that are gone."""
        products = await asyncio.to_thread(self._products.get_many, [hit.product_id for hit in hits])
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
    has_image = any(image.image_id == hit.image_id for image in product.images)
    return has_image and (filter is None or matches(filter, product.attributes))


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
        keyword: KeywordSearchConfig,
        thresholds: Thresholds,
        check: StoreCheck,
    ) -> None:
        self._current = CurrentProducts(catalog.products)
        self._encoders = encoders
        self._ensemble = ensemble
        self._hybrid = HybridSearch(catalog.keyword_index, keyword.deadline_s)
        self._words_weight = keyword.weight
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
            answer.keyword_weight,
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
