"""Ranked lists of a comparison: queries are encoded once a version and searched in its collection."""

import asyncio
import heapq
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from catalog.ledger import SqlLedger
from catalog.opening import Catalog
from catalog.products import SqlProducts
from core.concurrency import batched
from core.config import EvaluationConfig
from core.ensemble import EnsembleSearch
from core.errors import Conflict, InvalidInput, Unavailable, UnsupportedModality, VitrineError
from core.filters import Filter
from core.ports import EncoderClient, VectorStore
from core.search import ModelSearch, SearchQuery
from core.types import Captioned, Encoded, EncoderInfo, EncoderInput, Hit, Vector, row_key
from jobs.evaluation.queries import JudgedQuery, draw
from jobs.evaluation.result import System
from jobs.runner.cluster import run_task
from jobs.runner.settings import EncoderSettings, Settings
from milvus.config import MilvusConfig
from milvus.store import MilvusStore
from models.config import EncoderConfig
from models.encoder import LocalEncoder, load_encoder

Encode = Callable[[EncoderSettings, Sequence[EncoderInput]], Encoded]
"""Loads a version and embeds inputs with it."""
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
