"""Ranked lists of a comparison: queries are encoded once a version and searched in its collection."""

import asyncio
import heapq
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import replace

from catalog.blobs import FsspecBlobs
from catalog.ledger import SqlLedger
from catalog.opening import Catalog
from catalog.products import SqlProducts
from core.concurrency import batched
from core.config import EvaluationConfig
from core.ensemble import EnsembleSearch
from core.errors import Conflict, InvalidInput, NotFound, Unavailable, UnsupportedModality, VitrineError
from core.filters import Filter
from core.ports import EncoderClient, VectorStore
from core.rerank import Matches, Rerank, rerank_hits
from core.search import ModelSearch, SearchQuery
from core.types import Captioned, Encoded, EncoderInfo, EncoderInput, Hit, Vector, row_key
from jobs.evaluation.queries import JudgedQuery, draw
from jobs.evaluation.result import System
from jobs.runner.cluster import run_task
from jobs.runner.settings import EncoderSettings, Settings
from milvus.config import MilvusConfig
from milvus.store import MilvusStore
from models.config import EncoderConfig
from models.encoder import Pixels, load_encoder
from models.local_encoder import LocalEncoder
from models.matching import FeatureCache

Encode = Callable[[EncoderSettings, Sequence[EncoderInput]], Encoded]
"""Loads a version and embeds inputs with it."""
Scores = Mapping[str, Mapping[str, float]]
"""Scores of a matching head by text and by the sha256 of images."""
Match = Callable[[EncoderSettings, Mapping[str, Sequence[str]]], Scores]
"""Loads a model and scores how well each text fits its images, which are named by their sha256."""
_PAGE = 1000
_SEARCHES_AT_ONCE = 8
_DEADLINE_S = 120.0
"""Deadline of a search, in seconds; only a store that hangs reaches it."""


class EncodedInputs:
    """Implements `core.ports.EncoderClient` over vectors that were computed before, so searches need no model."""

    def __init__(self, name: str, inputs: Sequence[EncoderInput], encoded: Encoded) -> None:
        self.name = name
        self.info = encoded.info
        self._answers: Mapping[EncoderInput, Vector | VitrineError] = dict(
            zip(inputs, encoded.vectors, strict=True)
        )

    async def describe(self) -> EncoderInfo:
        """Return the version of the vectors."""
        return self.info

    async def encode(self, inputs: Sequence[EncoderInput]) -> Encoded:
        """Look up the vectors of these inputs."""
        return Encoded(self.info, [self._answers[each] for each in inputs])

    async def caption(self, images: Sequence[bytes]) -> Captioned:
        """Raise: there are no captions."""
        raise UnsupportedModality(f"{len(images)} images were embedded, not captioned")


def encode_on_cluster(settings: Settings) -> Encode:
    """Encode in a Ray task with the resources of a copy of the model in bulk jobs."""

    def encode(encoder: EncoderSettings, inputs: Sequence[EncoderInput]) -> Encoded:
        resources = encoder.resources(settings.bulk)
        encoded: Encoded = run_task(resources, encode_here, encoder.config, list(inputs))
        return replace(encoded, info=replace(encoded.info, index_schema=settings.milvus.index_schema))

    return encode


def encode_here(config: EncoderConfig, inputs: Sequence[EncoderInput]) -> Encoded:
    """Load the model in this process and embed the inputs, batch by batch; each succeeds or fails alone."""
    client = LocalEncoder(load_encoder(config.uncompiled), config.decode_threads)
    return asyncio.run(_in_batches(client, inputs, config.max_batch_size))


async def _in_batches(client: EncoderClient, inputs: Sequence[EncoderInput], size: int) -> Encoded:
    vectors: list[Vector | VitrineError] = []
    for some in batched(inputs, size):
        vectors += (await client.encode(some)).vectors
    return Encoded(await client.describe(), vectors)


def match_on_cluster(settings: Settings) -> Match:
    """Match in a Ray task with the resources of a copy of the model in bulk jobs."""

    def match(encoder: EncoderSettings, wanted: Mapping[str, Sequence[str]]) -> Scores:
        scores: Scores = run_task(
            encoder.resources(settings.bulk), match_here, encoder.config, settings.catalog.blobs_url, wanted
        )
        return scores

    return match


def match_here(config: EncoderConfig, blobs_url: str, wanted: Mapping[str, Sequence[str]]) -> Scores:
    """Load the model in this process and score the images of each text; those that cannot be scored are left out.

    Raises:
        UnsupportedModality: the model has no matching head.
        Unavailable: the model or the files are away.
    """
    encoder, blobs = load_encoder(config.uncompiled), FsspecBlobs(blobs_url)
    cache = FeatureCache(config.feature_cache_max_bytes)
    scores: dict[str, dict[str, float]] = {}
    for text, images in wanted.items():
        features = {sha256: held for sha256 in images if (held := cache.get(sha256)) is not None}
        for some in batched((each for each in images if each not in features), config.max_batch_size):
            decoded: dict[str, Pixels] = {}
            for sha256 in some:
                with suppress(InvalidInput, NotFound):
                    decoded[sha256] = encoder.decode(blobs.get(sha256))
            for sha256, found in zip(decoded, encoder.features(list(decoded.values())), strict=True):
                if isinstance(found, Unavailable):
                    # An evaluation of the images that are left would be another.
                    raise found
                if not isinstance(found, VitrineError):
                    features[sha256] = found
                    cache.put(sha256, found)
        judged = zip(features, encoder.match(text, list(features.values())), strict=True)
        scores[text] = {sha256: score for sha256, score in judged if not isinstance(score, VitrineError)}
    return scores


class PooledStore(MilvusStore):
    """Store that scores all of the given products and searches no others."""

    def __init__(self, config: MilvusConfig, products: Sequence[str]) -> None:
        super().__init__(config)
        self._products = products

    def search_products(
        self,
        collection: str,
        vector: Vector,
        limit: int,
        filter: Filter | None = None,
        exclude_products: Sequence[str] = (),
    ) -> list[Hit]:
        """Find the `limit` nearest of the given products, each by its best image."""
        excluded = set(exclude_products)
        left = [product_id for product_id in self._products if product_id not in excluded]
        return self.score_products(collection, vector, left, filter)[:limit]


def pool_of(
    catalog: Catalog, infos: Collection[EncoderInfo], config: EvaluationConfig, wanted: AbstractSet[str]
) -> list[str] | None:
    """Choose products that all collections hold, `wanted` ones first; None where every collection is complete.

    Raises:
        Conflict: a collection is empty.
    """
    counts = {info.collection: catalog.ledger.counts(info.collection) for info in infos}
    empty = [info for info in infos if not counts[info.collection].indexed]
    if empty:
        raise Conflict(
            f"model {empty[0].name!r} has no images in its collection {empty[0].collection} yet; build it first"
        )
    if not any(each.missing for each in counts.values()):
        return None
    return heapq.nsmallest(
        config.pool_products,
        _shared(catalog.products, catalog.ledger, list(counts)),
        key=lambda product_id: (product_id not in wanted, draw(config.seed, product_id)),
    )


def _shared(products: SqlProducts, ledger: SqlLedger, collections: Collection[str]) -> Iterator[str]:
    after: str | None = None
    while page := products.page(_PAGE, after):
        keys = {
            product.product_id: [row_key(each.image_id, each.revision) for each in product.images]
            for product in page
            if product.images
        }
        wanted = [key for each in keys.values() for key in each]
        indexed = set(wanted)
        for collection in collections:
            indexed &= ledger.indexed(collection, wanted)
        yield from (product_id for product_id, each in keys.items() if indexed.issuperset(each))
        after = page[-1].product_id


Lists = dict[str, list[Hit]]
"""Distinct products by query id, best first."""


def rank(
    system: System,
    versions: Mapping[str, EncodedInputs],
    store: VectorStore,
    queries: Sequence[JudgedQuery],
    depth: int,
    check: Callable[[], None],
) -> Lists:
    """Search for each query; those that the system cannot answer, as words for eyes only, are left out.

    `check` is called before every search and may raise to end the work.

    Raises:
        Unavailable: the store does not answer.
    """
    searches = {label: ModelSearch(versions[label], store) for label in system.weights}

    async def answer(query: JudgedQuery, places: asyncio.Semaphore) -> list[Hit] | None:
        async with places:
            check()
            try:
                return await _hits(system, searches, SearchQuery(query.parts, depth))
            except InvalidInput:
                return None

    async def answer_all() -> Lists:
        places = asyncio.Semaphore(_SEARCHES_AT_ONCE)
        found = await asyncio.gather(*(answer(query, places) for query in queries))
        return {query.query_id: hits for query, hits in zip(queries, found, strict=True) if hits is not None}

    return asyncio.run(answer_all())


def rerank(
    systems: Sequence[System],
    ranked: Mapping[str, Lists],
    queries: Sequence[JudgedQuery],
    catalog: Catalog,
    match: Callable[[Mapping[str, Sequence[str]]], Scores],
) -> dict[str, Lists]:
    """Give systems of a second stage the lists of the first, re-ranked; queries without a text are left out.

    An image is scored once for a text, whichever systems have found it.
    """
    texts = {query.query_id: query.text for query in queries if query.text is not None}
    firsts: list[tuple[System, Rerank, Lists]] = []
    for system in systems:
        if system.rerank is not None and system.of is not None:
            first = {key: hits for key, hits in ranked[system.of].items() if key in texts}
            firsts.append((system, system.rerank, first))
    images = _images(
        catalog,
        [hit for _, second, first in firsts for hits in first.values() for hit in hits[: second.depth]],
    )
    wanted: dict[str, dict[str, None]] = {}
    for _, second, first in firsts:
        for key, hits in first.items():
            wanted.setdefault(texts[key], {}).update(
                (images[hit.image_id], None) for hit in hits[: second.depth] if hit.image_id in images
            )
    scores = match({text: list(of_text) for text, of_text in wanted.items()})
    return {
        system.name: {
            key: rerank_hits(
                hits,
                second,
                {hit.product_id: images.get(hit.image_id, "") for hit in hits[: second.depth]},
                Matches(scores=dict(scores[texts[key]])),
            )[0]
            for key, hits in first.items()
        }
        for system, second, first in firsts
    }


def _images(catalog: Catalog, hits: Sequence[Hit]) -> dict[str, str]:
    """Look up the sha256 of the hits' images, by their ids; those that are gone are left out."""
    found: dict[str, str] = {}
    for some in batched(sorted({hit.product_id for hit in hits}), _PAGE):
        for product in catalog.products.get_many(some).values():
            found.update((image.image_id, image.sha256) for image in product.images)
    return found


async def _hits(system: System, searches: Mapping[str, ModelSearch], query: SearchQuery) -> list[Hit]:
    if system.fusion is None:
        (search,) = searches.values()
        return (await search.search(query)).hits
    ensemble = EnsembleSearch(searches, _DEADLINE_S)
    result = await ensemble.search(replace(query, weights=system.weights, fusion=system.fusion))
    if result.degraded:
        # An ensemble without a member is another ensemble, with other figures.
        away = result.skipped | result.incomplete
        reasons = "; ".join(f"{name}: {message}" for name, message in away.items())
        raise Unavailable(f"a member did not answer, so its ensemble was not measured ({reasons})")
    return result.hits
