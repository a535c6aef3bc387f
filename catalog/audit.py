"""Reads all images and all ledger rows, for verification."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import select, tuple_

from catalog.database import SqlPart, batched_rows
from catalog.ledger_queries import between, parse_keys, rows_of
from catalog.tables import EmbeddingRow, ImageRow
from core.types import row_key

_PAGE = 5_000
RowState = Literal["settled", "failed", "open"]


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image as all stores should hold it: its row key, product and file."""

    key: str
    product_id: str
    sha256: str
    bytes: int


class SqlAudit(SqlPart):
    """Reads all images, and all ledger rows of a collection, one page a transaction.

    Concurrent writes may be included or not.
    """

    def images(self, first: str = "", beyond: str | None = None) -> Iterator[StoredImage]:
        """Iterate over the images with `first <= image id < beyond` in the order of their ids, by default all."""
        columns = (ImageRow.id, ImageRow.revision, ImageRow.product_id, ImageRow.sha256, ImageRow.bytes)
        within = select(*columns).where(between(ImageRow.id, first, beyond))
        ordered = within.order_by(ImageRow.id).limit(_PAGE)
        after = ""
        while page := self._read(ordered.where(ImageRow.id > after)):
            for image_id, revision, *stored in page:
                yield StoredImage(row_key(image_id, revision), *stored)
            after = page[-1].id

    def rows(
        self, collection: str, first: str = "", beyond: str | None = None
    ) -> Iterator[tuple[str, RowState]]:
        """Iterate over the ledger rows of a collection, by default all, as row keys with states."""
        key = tuple_(EmbeddingRow.image_id, EmbeddingRow.image_revision)
        ordered = (
            select(*key, EmbeddingRow.embedded_at, EmbeddingRow.error)
            .where(EmbeddingRow.collection == collection, between(EmbeddingRow.image_id, first, beyond))
            .order_by(*key)
            .limit(_PAGE)
        )
        after = ("", 0)
        while page := self._read(ordered.where(key > after)):
            for image_id, revision, embedded_at, error in page:
                state: RowState = "failed" if error is not None else "settled" if embedded_at else "open"
                yield row_key(image_id, revision), state
            after = (image_id, revision)

    def known(self, collection: str, keys: Sequence[str]) -> set[str]:
        """Return those of these row keys that the ledger has in any state."""
        columns = select(EmbeddingRow.image_id, EmbeddingRow.image_revision)
        batches = batched_rows(parse_keys(keys))
        rows = self._read(*(columns.where(rows_of(collection, some)) for some in batches))
        return {row_key(*row) for row in rows}
