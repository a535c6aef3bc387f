"""Products: write them durably, then index them; summarize their attributes."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

from catalog.opening import Catalog
from catalog.products import (
    Operation,
    PutProduct,
    SqlProducts,
    StoredProduct,
)
from core.concurrency import GroupQueue, TtlCache, start_shared
from core.errors import Unavailable, VitrineError, expected
from core.filters import kind_of
from core.index_rows import GRACE_S, IndexRows, RowState
from core.indexing import Indexer, IndexInput, IndexState
from core.ports import VectorStore
from core.store_check import StoreCheck
from core.telemetry import current_request_id
from core.types import (
    Attributes,
    IndexItem,
    IndexWork,
    Product,
    Removal,
    image_id_of,
)
from deployments.observability.telemetry import as_request, new_request_id
from deployments.services.encoders import EncoderSet

MAX_PRODUCTS = 2_000
"""Products that are read; of a larger catalog a random sample."""
MAX_ATTRIBUTES = 50
MAX_VALUES = 50
MAX_CHARS = 100
"""Longer strings are prose and not listed as values."""
TTL_S = 30.0


_MAX_HELD_BYTES = 128 * 2**20
"""Most bytes of image files that this process holds for indexing."""
_MAX_HELD_IMAGES = 20_000
_BEGIN_WITHIN_S = GRACE_S * 2 / 3
"""Longest wait of an image for a call. The repair, which takes over after `GRACE_S`, does the others."""
_TOGETHER_S = 0.5
"""Longest wait for slow models before the rows of the others are settled."""
_CALLS_AT_ONCE = 2
"""Calls of one model under way: the vectors of one are written while the other is encoded."""

_Placement = tuple[str, Literal["written", "indexed", "failed"]]
"""A collection, and what became of an image there."""


@dataclass(frozen=True, slots=True)
class Written:
    """A product as stored, and for each model the state of each of its images; `product` is None after a delete."""

    product: Product | None
    created: bool
    index: dict[str, dict[str, IndexState]]


class ProductWrites:
    """Writes products durably, then indexes their images with every model.

    A write is acknowledged once blobs and SQL are durable. The request then waits for the embeddings, but only for
    a limited time. Work that has begun goes on after that. What has not begun within `_BEGIN_WITHIN_S`, and what
    exceeds the bounds above, stays missing in the ledger, and the repair completes it. Nobody waits for the removal
    of obsolete vectors, since searches show only what the catalog has.

    Images of different requests share calls to encoders and to Milvus, and their rows are settled together: those
    that arrive while such a call is under way make up the next one.
    """

    def __init__(
        self, catalog: Catalog, store: VectorStore, encoders: EncoderSet, wait_s: float, check: StoreCheck
    ) -> None:
        self._products, self._vectors, self._wait_s = catalog.products, store, wait_s
        self._rows = IndexRows(store, catalog.ledger, check)
        self._models = {
            encoder.name: _Model(
                encoder.name, Indexer(encoder, store, catalog.ledger, catalog.blobs, self._rows)
            )
            for encoder in encoders
        }
        self._settling = GroupQueue(self._settle_group, "settling indexed images")
        self._removing = GroupQueue(self._remove_group, "removing obsolete vectors")
        self._running: set[asyncio.Task[None]] = set()
        self._held_images = self._held_bytes = 0

    async def write(self, operations: Sequence[Operation], wait: bool = True) -> list[Written | VitrineError]:
        """Write products in one transaction; each operation succeeds or fails alone, in order.

        Without `wait` it returns as soon as the write is durable, and the images are indexed in the background. If
        several operations are on one product, each reports the images that the last one leaves.

        Raises:
            Unavailable: the catalog does not answer; nothing is written.
        """
        stored, inputs = await asyncio.to_thread(self._store, operations)
        products = {
            product_id: _Indexing(some, work, self._models) for product_id, (some, work) in inputs.items()
        }
        work = {self._start(self._index(each)) for each in products.values() if self._hold(each)}
        if work and wait:
            await asyncio.wait(work, timeout=self._wait_s)
        return [
            outcome
            if isinstance(outcome, VitrineError)
            else Written(outcome.product, outcome.created, products[operation.product_id].copy_states())
            for operation, outcome in zip(operations, stored, strict=True)
        ]

    async def write_one(self, operation: Operation, wait: bool = True) -> Written:
        """Do one operation as `write` does, and raise its error.

        Raises:
            InvalidInput: something cannot be stored or indexed; then nothing changes.
            NotFound: there is no such product to patch or delete.
        """
        (written,) = await self.write([operation], wait)
        if isinstance(written, VitrineError):
            raise written
        return written

    def _store(
        self, operations: Sequence[Operation]
    ) -> tuple[list[StoredProduct | VitrineError], dict[str, tuple[list[IndexInput], IndexWork]]]:
        """Write to the catalog; returns the outcomes, and what is left to do for each product."""
        stored = self._products.write(operations, self._vectors.check_attributes)
        # The last operation on a product has all of its work.
        return stored, {
            operation.product_id: (_inputs(operation, outcome), outcome.work)
            for operation, outcome in zip(operations, stored, strict=True)
            if not isinstance(outcome, VitrineError)
        }

    def _hold(self, product: "_Indexing") -> bool:
        """Return whether there is work to do for a product, and room for it."""
        images, held_bytes = self._held_images + product.images, self._held_bytes + product.bytes
        if product.is_done or images > _MAX_HELD_IMAGES or held_bytes > _MAX_HELD_BYTES:
            return False
        self._held_images, self._held_bytes = images, held_bytes
        return True

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = start_shared(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _index(self, product: "_Indexing") -> None:
        """Index a product's images with all models side by side; its obsolete vectors are removed after that."""
        try:
            placing = {start_shared(self._place(product, *each)) for each in product.pending}
            until = asyncio.ALL_COMPLETED
            while placing:
                timeout_s = _TOGETHER_S if until == asyncio.ALL_COMPLETED else None
                done, placing = await asyncio.wait(placing, timeout=timeout_s, return_when=until)
                await self._settle(product, [each for task in done for each in task.result()])
                if placing:
                    await self._remove(product)
                # None waits for a model that hangs.
                until = asyncio.FIRST_COMPLETED
        finally:
            self._start(self._finish(product))

    async def _finish(self, product: "_Indexing") -> None:
        try:
            await self._remove(product)
        finally:
            self._held_images -= product.images
            self._held_bytes -= product.bytes

    async def _place(
        self, product: "_Indexing", name: str, inputs: Sequence[IndexInput]
    ) -> list[tuple[str, str, IndexItem]]:
        """Bring images into Milvus with one model; returns model, collection and item of each."""
        placements = await self._models[name].place(inputs, product.request_id)
        written = []
        for each, placement in zip(inputs, placements, strict=True):
            if isinstance(placement, VitrineError):
                continue
            collection, outcome = placement
            if outcome == "written":
                written.append((name, collection, each.item))
            else:
                product.states[name][each.item.image_id] = outcome
        return written

    async def _settle(self, product: "_Indexing", written: Sequence[tuple[str, str, IndexItem]]) -> None:
        items: dict[str, list[IndexItem]] = defaultdict(list)
        for _, collection, item in written:
            items[collection].append(item)
        if items:
            (rows,) = await self._settling.submit([items])
            # Where the ledger does not answer, the images stay missing.
            settled = {} if isinstance(rows, VitrineError) else rows
            for name, collection, item in written:
                if settled.get((collection, item.key)) == "settled":
                    product.settle(name, collection, item.image_id)

    async def _remove(self, product: "_Indexing") -> None:
        if removals := product.removals():
            # What cannot be removed now stays obsolete in the ledger.
            await self._removing.submit([removals])

    async def _settle_group(
        self, groups: Sequence[Mapping[str, Sequence[IndexItem]]]
    ) -> list[Mapping[tuple[str, str], RowState]]:
        # By key: products that are written twice at once bring the same rows.
        merged: dict[str, dict[str, IndexItem]] = defaultdict(dict)
        for group in groups:
            for collection, items in group.items():
                merged[collection].update({item.key: item for item in items})
        rows = await asyncio.to_thread(
            self._rows.settle, {collection: list(items.values()) for collection, items in merged.items()}
        )
        return [rows] * len(groups)

    async def _remove_group(self, groups: Sequence[Sequence[tuple[str, Removal]]]) -> list[None]:
        await asyncio.to_thread(self._rows.finish, list(chain.from_iterable(groups)))
        return [None] * len(groups)


class _Indexing:
    """Open work of one stored product; `states` has the state of each of its images, by model."""

    def __init__(self, inputs: Sequence[IndexInput], work: IndexWork, models: Mapping[str, "_Model"]) -> None:
        """`pending` gets, for each model and queue, the images that the model may lack."""
        self.states: dict[str, dict[str, IndexState]] = {
            name: {
                each.item.image_id: "indexed" if model.serving in each.settled else "pending"
                for each in inputs
            }
            for name, model in models.items()
        }
        self.pending = [
            (name, some)
            for name, states in self.states.items()
            for of_queue in (True, False)
            if (
                some := [
                    each
                    for each in inputs
                    if states[each.item.image_id] == "pending" and bool(each.former) == of_queue
                ]
            )
        ]
        self.images, self.bytes = max(1, len(inputs)), sum(len(each.data or b"") for each in inputs)
        self.request_id = current_request_id()
        self._begun_at = work.begun_at
        self._obsolete = {collection: set(keys) for collection, keys in work.obsolete.items() if keys}
        self._unsettled = {
            (collection, item.image_id) for collection, items in work.missing.items() for item in items
        }

    @property
    def is_done(self) -> bool:
        """Whether there is nothing to index and nothing to remove."""
        return not self.pending and not self._obsolete

    def settle(self, model: str, collection: str, image_id: str) -> None:
        """Note that the ledger has the image as indexed."""
        self.states[model][image_id] = "indexed"
        self._unsettled.discard((collection, image_id))

    def removals(self) -> list[tuple[str, Removal]]:
        """Return obsolete rows by collection, each once; one whose successor is not settled stays for searches."""
        removals = []
        for collection, keys in self._obsolete.items():
            if ready := {key for key in keys if (collection, image_id_of(key)) not in self._unsettled}:
                keys -= ready
                removals.append((collection, Removal(sorted(ready), self._begun_at)))
        return removals

    def copy_states(self) -> dict[str, dict[str, IndexState]]:
        """Copy the states as they are now."""
        return {name: dict(states) for name, states in self.states.items()}


class _Model:
    """The index queues of one model; `serving` is the collection that was last written to.

    Images whose vectors can be copied have a queue of their own, so that they do not wait for the encoder.
    """

    def __init__(self, name: str, indexer: Indexer) -> None:
        self._name, self._indexer = name, indexer
        doing = f"indexing with {name}"
        self._encoding = GroupQueue(self._place_group, doing, _CALLS_AT_ONCE, _size)
        self._copying = GroupQueue(self._place_group, doing, _CALLS_AT_ONCE)
        self.serving: str | None = None

    async def place(self, inputs: Sequence[IndexInput], request_id: str) -> list[_Placement | VitrineError]:
        """Bring images of one queue into Milvus, or say why not; their rows are not settled."""
        queue = self._copying if inputs[0].former else self._encoding
        return await queue.submit([(each, request_id) for each in inputs], _BEGIN_WITHIN_S)

    async def _place_group(self, group: Sequence[tuple[IndexInput, str]]) -> list[_Placement | VitrineError]:
        # By key: a product that is written twice at once brings its images twice.
        inputs = {each.item.key: each for each, _ in group}
        placements: dict[str, _Placement] = {}
        failure: VitrineError | None = None
        # A call that requests share has the id of the first.
        with as_request(group[0][1] or new_request_id("index")):
            try:
                async for placed in self._indexer.place(list(inputs.values())):
                    self.serving = collection = placed.collection
                    placements |= {item.key: (collection, "written") for item in placed.written}
                    placements |= {item.key: (collection, "indexed") for item in placed.settled}
                    placements |= {item.key: (collection, "failed") for item, _ in placed.failed}
            except Exception as error:
                # The products are stored, and the ledger has what is not indexed as missing.
                failure = expected(error, f"indexing with {self._name}")
        waits = "the image waits for a model or for Milvus"
        return [placements.get(each.item.key) or failure or Unavailable(waits) for each, _ in group]


def _size(queued: tuple[IndexInput, str]) -> int:
    return len(queued[0].data or b"")


def _inputs(operation: Operation, stored: StoredProduct) -> list[IndexInput]:
    """Return the product's images with what the write knows of each."""
    product, work = stored.product, stored.work
    if product is None:
        return []
    files: dict[str, bytes] = {}
    if isinstance(operation, PutProduct) and operation.images is not None:
        # A repeated file counts once, at its first place.
        distinct = dict.fromkeys(each.data for each in operation.images)
        files = {image.sha256: data for image, data in zip(product.images, distinct, strict=True)}
    opened: dict[str, set[str]] = defaultdict(set)
    for collection, items in work.missing.items():
        for item in items:
            opened[item.image_id].add(collection)
    former: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for collection, keys in work.obsolete.items():
        for key in keys:
            former[image_id_of(key)][collection].append(key)
    return [
        IndexInput(
            IndexItem(
                image.image_id,
                image.revision,
                product.product_id,
                image.sha256,
                product.attributes,
                image.bytes,
            ),
            files.get(image.sha256),
            opened[image.image_id],
            work.missing.keys() - opened[image.image_id],
            former[image.image_id],
        )
        for image in product.images
    ]


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
        """Return the summary; may raise Unavailable."""
        return await self._summary.get(None)

    def _summarize(self) -> Summary:
        return summarize(each.attributes for each in self._products.sample(MAX_PRODUCTS))
