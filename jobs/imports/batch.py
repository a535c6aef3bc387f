"""Batches of a source's entries, read concurrently and written together; each product succeeds or fails alone."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from catalog.fetching.fetcher import Fetcher
from catalog.imports import KnownImage, RowError
from catalog.opening import Catalog
from catalog.product_rows import check_attributes, check_new_product_id, check_texts, is_same
from catalog.products import PutProduct
from catalog.sources.entries import Entry, ImageReference, Record
from core.concurrency import MAX_ENCODE_BYTES
from core.errors import FetchFailed, InputTooLarge, InvalidInput, VitrineError
from core.types import NewImage, Product
from jobs.imports.images import Found, ImageReader
from jobs.runner.settings import Settings
from milvus.schema import encode_attributes

Outcome = Literal["created", "updated", "unchanged"]


@dataclass(slots=True)
class BatchResult:
    """Outcome of a batch; `products` holds the row that counts for each product id."""

    products: dict[str, int] = field(default_factory=dict)
    errors: list[RowError] = field(default_factory=list)
    images: dict[str, KnownImage] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def fail(self, row: int, product_id: str | None, message: str) -> None:
        """Record the error of a row."""
        self.counts["failed"] += 1
        self.errors.append(RowError(row, product_id, message))

    def replace(self, row: int, by: Entry) -> None:
        """Record that a later row counts in place of this one."""
        self.fail(row, by.product_id, f"row {by.row} has the same product id, and the later row counts")


def check_record(record: Record, settings: Settings) -> None:
    """Refuse a product that the catalog or the index would not take, before its images are read.

    Raises:
        InvalidInput: its id, a text, an attribute or the number of its images is not allowed.
    """
    max_images = settings.max_images_per_product
    check_new_product_id(record.product_id)
    check_texts(record.title, record.description)
    check_attributes(record.attributes)
    encode_attributes(record.attributes, settings.milvus.attribute_kinds)
    if (count := len(record.images or ())) > max_images:
        raise InputTooLarge(f"the product has {count} images; at most {max_images} are kept")


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A product as its last good row describes it; `images` are None where they stay, and not read if `is_same`."""

    entry: Entry
    record: Record
    found: Sequence[Found] = ()
    images: Sequence[NewImage] | None = None
    is_same: bool = False

    @property
    def operation(self) -> PutProduct:
        """The write that it takes."""
        record = self.record
        return PutProduct(record.product_id, record.title, record.description, record.attributes, self.images)

    @property
    def bytes(self) -> int:
        """Bytes of the images that wait to be written."""
        return sum(len(each.data) for each in self.images or ())


class BatchImport:
    """Puts batches into the catalog; each product succeeds or fails alone, and an unchanged one costs no write."""

    def __init__(self, catalog: Catalog, settings: Settings, ask_again: bool) -> None:
        self._catalog = catalog
        self._settings = settings
        self._fetcher = Fetcher(settings.fetch)
        self._ask_again = ask_again

    def put(self, entries: Sequence[Entry], earlier: Mapping[str, int]) -> BatchResult:
        """Import entries; `earlier` holds the rows that count for products of former batches.

        Of several rows with one product id the last good one counts; the others are reported.

        Raises:
            Unavailable: the catalog does not answer; the same batch may be put again.
        """
        return asyncio.run(self._put(entries, earlier))

    async def _put(self, entries: Sequence[Entry], earlier: Mapping[str, int]) -> BatchResult:
        result = BatchResult()
        records = _records(entries, earlier, result)
        references = [
            str(each) for rows in records.values() for _, record in rows for each in record.images or ()
        ]
        previous, known = await asyncio.gather(
            asyncio.to_thread(self._catalog.products.get_many, list(records)),
            asyncio.to_thread(self._catalog.imported_images.find, references),
        )
        images = known, result.images
        reader = ImageReader(self._fetcher, self._catalog.blobs, self._settings, self._ask_again, *images)
        writer = _Writer(self._catalog, earlier, result)
        places = asyncio.Semaphore(self._settings.imports.products_at_once)

        async def one(product_id: str, rows: list[tuple[Entry, Record]]) -> None:
            async with places:
                wanted = await self._read(reader, rows, previous.get(product_id), result)
                if wanted is not None:
                    await writer.add(wanted)

        await asyncio.gather(*(one(*each) for each in records.items()))
        await writer.flush()
        await asyncio.to_thread(self._catalog.imported_images.remember, result.images)
        return result

    async def _read(
        self,
        reader: ImageReader,
        rows: list[tuple[Entry, Record]],
        before: Product | None,
        result: BatchResult,
    ) -> _Wanted | None:
        """Read the last good row of a product; one that names no images keeps those of a good row before it."""
        wanted: _Wanted | None = None
        while rows:
            entry, record = rows.pop()
            counting = (wanted.entry, wanted.record) if wanted else (entry, record)
            try:
                check_record(record, self._settings)
                read = await self._read_images(reader, *counting, record.images, before, result)
            except (InvalidInput, FetchFailed) as error:
                result.fail(entry.row, entry.product_id, error.message)
                continue
            if wanted is not None:
                result.replace(entry.row, wanted.entry)
            wanted = read
            if record.images is not None:
                break
        for skipped, _ in rows:
            assert wanted is not None, "rows are left only behind a good one"
            result.replace(skipped.row, wanted.entry)
        return wanted

    async def _read_images(
        self,
        reader: ImageReader,
        entry: Entry,
        record: Record,
        references: Sequence[ImageReference] | None,
        before: Product | None,
        result: BatchResult,
    ) -> _Wanted:
        found = await reader.find(references or ())
        fresh = sum(each.data is not None for each in found)
        result.counts.update(images_read=fresh, images_unchanged=len(found) - fresh)
        sha256s = None if references is None else [each.known.sha256 for each in found]
        texts = record.title, record.description, record.attributes
        if before is not None and is_same(before, *texts, sha256s):
            return _Wanted(entry, record, found, is_same=True)
        images = None if references is None else await reader.load(found)
        return _Wanted(entry, record, found, images)


class _Writer:
    """Writes products in transactions that are bounded by the bytes of their images."""

    def __init__(self, catalog: Catalog, earlier: Mapping[str, int], result: BatchResult) -> None:
        self._catalog = catalog
        self._earlier = earlier
        self._result = result
        self._pending: list[_Wanted] = []
        self._one_at_a_time = asyncio.Lock()

    async def add(self, wanted: _Wanted) -> None:
        """Add a product, and write what has gathered if that is enough."""
        if wanted.is_same:
            # The store may have lost files that were read again.
            puts = (
                asyncio.to_thread(self._catalog.blobs.put, each.data)
                for each in wanted.found
                if each.data is not None
            )
            await asyncio.gather(*puts)
            self._done(wanted, "unchanged")
            return
        self._pending.append(wanted)
        if sum(each.bytes for each in self._pending) >= MAX_ENCODE_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Write what has gathered, in one transaction."""
        async with self._one_at_a_time:
            pending, self._pending = self._pending, []
            if not pending:
                return
            operations = [each.operation for each in pending]
            outcomes = await asyncio.to_thread(self._catalog.products.write, operations)
        for each, outcome in zip(pending, outcomes, strict=True):
            if isinstance(outcome, VitrineError):
                self._result.fail(each.entry.row, each.entry.product_id, outcome.message)
            else:
                self._done(each, "created" if outcome.created else "updated")

    def _done(self, wanted: _Wanted, outcome: Outcome) -> None:
        product_id = wanted.record.product_id
        if product_id in self._earlier:
            self._result.replace(self._earlier[product_id], wanted.entry)
        else:
            self._result.counts[outcome] += 1
        self._result.products[product_id] = wanted.entry.row
        # After the write, since remembered images must be in the store.
        self._result.images.update(
            (str(each.reference), each.known) for each in wanted.found if each.data is not None
        )


def _records(
    entries: Sequence[Entry], earlier: Mapping[str, int], result: BatchResult
) -> dict[str, list[tuple[Entry, Record]]]:
    """Return the entries with a product, by its id; record the others as errors."""
    records: dict[str, list[tuple[Entry, Record]]] = {}
    for entry in entries:
        result.counts["rows"] += 1
        if entry.product_id is None:
            result.counts["nameless"] += 1
        else:
            result.products[entry.product_id] = earlier.get(entry.product_id, entry.row)
        if isinstance(entry.content, VitrineError):
            result.fail(entry.row, entry.product_id, entry.content.message)
        else:
            records.setdefault(entry.content.product_id, []).append((entry, entry.content))
    return records
