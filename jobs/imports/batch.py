"""Batches of a source's entries, put into the catalog concurrently; each product succeeds or fails alone."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from catalog.fetching.fetcher import Fetcher
from catalog.imports import KnownImage, RowError
from catalog.opening import Catalog
from catalog.product_rows import check_attributes, check_new_product_id, check_texts, is_same
from catalog.sources.entries import Entry, Record
from core.errors import FetchFailed, InputTooLarge, InvalidInput, VitrineError
from core.types import Product
from jobs.imports.images import ImageReader
from jobs.runner.settings import Settings

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


def check_record(record: Record, max_images: int) -> None:
    """Refuse a product that the catalog would not take, before its images are read.

    Raises:
        InvalidInput: its id, a text, an attribute or the number of its images is not allowed.
    """
    check_new_product_id(record.product_id)
    check_texts(record.title, record.description)
    check_attributes(record.attributes)
    if (count := len(record.images or ())) > max_images:
        raise InputTooLarge(f"the product has {count} images; at most {max_images} are kept")


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
        records = self._wanted(entries, result)
        references = [
            str(each) for rows in records.values() for _, record in rows for each in record.images or ()
        ]
        previous, known = await asyncio.gather(
            asyncio.to_thread(self._catalog.products.get_many, list(records)),
            asyncio.to_thread(self._catalog.imported_images.find, references),
        )
        images = known, result.images
        reader = ImageReader(self._fetcher, self._catalog.blobs, self._settings, self._ask_again, *images)
        places = asyncio.Semaphore(self._settings.imports.products_at_once)

        async def put(entry: Entry, record: Record) -> bool:
            try:
                outcome = await self._product(reader, record, previous, result)
            except (InvalidInput, FetchFailed) as error:
                result.fail(entry.row, entry.product_id, error.message)
                return False
            counting = puts.get(record.product_id)
            if counting is None:
                result.counts[outcome] += 1
            else:
                result.replace(counting, entry)
            puts[record.product_id] = entry.row
            return True

        async def one(rows: list[tuple[Entry, Record]]) -> None:
            """Put the rows of one product, with the same result as one after the other."""
            on_top = []
            async with places:
                while rows:
                    entry, record = rows.pop()
                    if record.images is None and rows:
                        # It keeps the images of the row before.
                        on_top.append((entry, record))
                    elif await put(entry, record):
                        break
                for skipped, _ in rows:
                    result.replace(skipped.row, entry)
                for entry, record in reversed(on_top):
                    await put(entry, record)

        puts = dict(earlier)
        await asyncio.gather(*(one(rows) for rows in records.values()))
        result.products.update((each, puts[each]) for each in result.products if each in puts)
        await asyncio.to_thread(self._catalog.imported_images.remember, result.images)
        return result

    def _wanted(self, entries: Sequence[Entry], result: BatchResult) -> dict[str, list[tuple[Entry, Record]]]:
        """Return the entries with a product, by its id; record the others as errors."""
        wanted: dict[str, list[tuple[Entry, Record]]] = {}
        for entry in entries:
            result.counts["rows"] += 1
            if entry.product_id is None:
                result.counts["nameless"] += 1
            else:
                result.products[entry.product_id] = entry.row
            if isinstance(entry.content, VitrineError):
                result.fail(entry.row, entry.product_id, entry.content.message)
            else:
                wanted.setdefault(entry.content.product_id, []).append((entry, entry.content))
        return wanted

    async def _product(
        self, reader: ImageReader, record: Record, previous: dict[str, Product], result: BatchResult
    ) -> Outcome:
        check_record(record, self._settings.max_images_per_product)
        found = await reader.find(record.images or ())
        fresh = [each for each in found if each.data is not None]
        result.counts.update(images_read=len(fresh), images_unchanged=len(found) - len(fresh))
        before = previous.get(record.product_id)
        texts = record.title, record.description, record.attributes
        sha256s = None if record.images is None else [each.known.sha256 for each in found]
        if before is not None and is_same(before, *texts, sha256s):
            # The store may have lost files that were read again.
            puts = (
                asyncio.to_thread(self._catalog.blobs.put, each.data)
                for each in fresh
                if each.data is not None
            )
            await asyncio.gather(*puts)
            outcome: Outcome = "unchanged"
        else:
            images = None if record.images is None else await reader.load(found)
            put = self._catalog.products.put
            previous[record.product_id], is_new = await asyncio.to_thread(
                put, record.product_id, *texts, images
            )
            outcome = "created" if is_new else "updated"
        # After the put, since remembered images must be in the store.
        result.images.update((str(each.reference), each.known) for each in fresh)
        return outcome
