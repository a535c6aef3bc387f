"""Products: write them durably, then index them; summarize their attributes."""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from catalog.opening import Catalog
from catalog.products import DeleteProduct, Operation, PutProduct, SqlProducts, StoredProduct
from core.concurrency import TtlCache
from core.errors import Unavailable, VitrineError, expected
from core.filters import kind_of
from core.index_rows import IndexRows
from core.indexing import Indexer, IndexState
from core.ports import VectorStore
from core.store_check import StoreCheck
from core.types import Attributes, IndexItem, IndexWork, NewImage, Product, Removal
from deployments.http.middleware import ending_at
from deployments.observability.telemetry import apart_from_request
from deployments.services.encoders import EncoderSet

MAX_PRODUCTS = 2_000
"""Products that are read; of a larger catalog a random sample."""
MAX_ATTRIBUTES = 50
MAX_VALUES = 50
MAX_CHARS = 100
"""Longer strings are prose and not listed as values."""
TTL_S = 30.0


@dataclass(frozen=True, slots=True)
class Written:
    """A product as stored, and for each model the state of each of its images."""

    product: Product
    created: bool
    index: dict[str, dict[str, IndexState]]


class ProductWrites:
    """Puts and deletes products.

    A write is acknowledged once blobs and SQL are durable. The request then waits for the embeddings, but only for
    a limited time. What is not embedded by then stays missing in the ledger, and the repair completes it.
    """

    def __init__(
        self, catalog: Catalog, store: VectorStore, encoders: EncoderSet, wait_s: float, check: StoreCheck
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._rows = IndexRows(store, catalog.ledger, check)
        self._wait_s = wait_s
        self._indexers = {
            encoder.name: Indexer(
                encoder,
                store,
                catalog.ledger,
                catalog.blobs,
                IndexRows(store, catalog.ledger, check),
            )
            for encoder in encoders
        }
        self._running: set[asyncio.Task[None]] = set()

    async def put(
        self,
        product_id: str,
        title: str,
        description: str,
        attributes: Attributes,
        images: Sequence[NewImage] | None,
    ) -> Written:
        """Create or replace a product and index its images with every model.

        Raises:
            InvalidInput: something cannot be stored or indexed; then nothing is stored.
        """
        try:
            self._store.check_attributes(attributes)
        except VitrineError as error:
            raise error.at("attributes") from None
        stored = await self._write(PutProduct(product_id, title, description, attributes, images))
        product = stored.product
        assert product is not None
        items = await asyncio.to_thread(self._catalog.ledger.items, product_id)
        index: dict[str, dict[str, IndexState]] = {
            name: {item.image_id: "pending" for item in items} for name in self._indexers
        }
        await self._within_time(self._index(items, index, stored.work))
        return Written(product, stored.created, index)

    async def delete(self, product_id: str) -> None:
        """Delete a product; its vectors are deleted at once where Milvus answers, otherwise by the repair."""
        stored = await self._write(DeleteProduct(product_id))
        await self._within_time(self._remove(stored.work))

    async def _write(self, operation: Operation) -> StoredProduct:
        (outcome,) = await asyncio.to_thread(self._catalog.products.write, [operation])
        if isinstance(outcome, VitrineError):
            raise outcome
        return outcome

    async def _within_time(self, work: Coroutine[Any, Any, None]) -> None:
        """Wait for the work for a limited time; it continues after the response."""
        with ending_at(None), apart_from_request():
            task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        await asyncio.wait([task], timeout=self._wait_s)

    async def _index(
        self, items: Sequence[IndexItem], states: Mapping[str, dict[str, IndexState]], work: IndexWork
    ) -> None:
        await asyncio.gather(*(self._index_with(name, items, states[name]) for name in self._indexers))
        await self._remove(work)

    async def _index_with(self, name: str, items: Sequence[IndexItem], states: dict[str, IndexState]) -> None:
        indexer = self._indexers[name]
        try:
            info = await indexer.describe()
            done = await asyncio.to_thread(
                self._catalog.ledger.indexed, info.collection, [item.key for item in items]
            )
            states.update({item.image_id: "indexed" for item in items if item.key in done})
            states.update(await indexer.index([item for item in items if item.key not in done]))
        except Exception as error:
            # The product is stored, and the ledger has what is not indexed as missing.
            expected(error, f"indexing with {name}")

    async def _remove(self, work: IndexWork) -> None:
        for collection, keys in work.obsolete.items():
            try:
                await asyncio.to_thread(self._rows.complete, collection, Removal(keys, work.begun_at))
            except Unavailable:
                return
            except Exception as error:
                # The collection of an old version may be gone; the others still need the removal.
                expected(error, f"removing vectors from {collection}")


@dataclass(slots=True)
class Attribute:
    """One attribute: its number of products, its strings and bools by frequency, and its range of numbers."""

    name: str
    products: int = 0
    values: Counter[str | bool] = field(default_factory=Counter)
    minimum: float | None = None
    maximum: float | None = None

    def add(self, value: object) -> None:
        """Count one product's value; of a list, each element."""
        self.products += 1
        elements = value if isinstance(value, list) else [value]
        for kind, element in {known for each in elements if (known := kind_of(each)) is not None}:
            if kind == "number":
                self.minimum = element if self.minimum is None else min(self.minimum, element)
                self.maximum = element if self.maximum is None else max(self.maximum, element)
            elif kind == "bool" or len(element) <= MAX_CHARS:
                self.values[element] += 1


@dataclass(frozen=True, slots=True)
class Summary:
    """Attributes of the products that were read, the most frequent first."""

    products_read: int
    attributes: list[Attribute]


def summarize(products: Iterable[Attributes]) -> Summary:
    """Summarize attributes; those without values to filter by are left out."""
    found: dict[str, Attribute] = {}
    read = 0
    for attributes in products:
        read += 1
        for name, value in attributes.items():
            if value is not None:
                found.setdefault(name, Attribute(name)).add(value)
    useful = [each for each in found.values() if each.values or each.minimum is not None]
    useful.sort(key=lambda each: (-each.products, each.name))
    return Summary(read, useful[:MAX_ATTRIBUTES])


class AttributeSummaries:
    """Summary of the catalog, cached for half a minute."""

    def __init__(self, products: SqlProducts) -> None:
        self._products = products
        self._summary = TtlCache[None, Summary](lambda _: asyncio.to_thread(self._summarize), TTL_S)

    async def current(self) -> Summary:
        """Sum up the catalog; may raise Unavailable."""
        return await self._summary.get(None)

    def _summarize(self) -> Summary:
        return summarize(each.attributes for each in self._products.sample(MAX_PRODUCTS))
