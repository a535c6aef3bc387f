"""Queries of the embeddings ledger: statement parts, progress, quarantine and audit."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    case,
    false,
    func,
    not_,
    select,
    tuple_,
    update,
)
from sqlalchemy.orm import InstrumentedAttribute

from catalog.database import SqlPart, batched_rows, locked, upsert, writing
from catalog.product_rows import seconds_since
from catalog.tables import CaptionRow, EmbeddingRow, ImageRow, ProductRow
from core.errors import RELEASE, Internal, VitrineError
from core.types import LedgerCounts, row_key

RowKey = tuple[str, int]
"""An image id with a revision."""

ITEMS = select(
    ImageRow.id,
    ImageRow.revision,
    ImageRow.product_id,
    ImageRow.sha256,
    ProductRow.attributes,
    ImageRow.bytes,
).join(ProductRow, ProductRow.id == ImageRow.product_id)
"""Columns in the order of `IndexItem`'s fields."""

IS_OPEN = and_(EmbeddingRow.embedded_at.is_(None), EmbeddingRow.error.is_(None))

IS_CURRENT = (
    select(ImageRow.id)
    .where(ImageRow.id == EmbeddingRow.image_id, ImageRow.revision == EmbeddingRow.image_revision)
    .exists()
)
"""Condition: the row belongs to an image of the catalog at its current revision."""

_IMAGE_ID_CHARS = 32
_MAX_INT64 = 2**63 - 1
_MAX_ERROR_CHARS = 2_000
_PAGE = 5_000


def of_current_revision(collection: str) -> ColumnElement[bool]:
    """Join an image with its row in the collection at the image's current revision."""
    return and_(
        EmbeddingRow.image_id == ImageRow.id,
        EmbeddingRow.image_revision == ImageRow.revision,
        EmbeddingRow.collection == collection,
    )


def in_flight(now: datetime, grace_s: float) -> ColumnElement[bool]:
    """Select rows that were opened less than `grace_s` ago: a writer is probably at work on them."""
    # Without grace there are none, even where the clock that opened the row is ahead.
    if grace_s <= 0:
        return false()
    return and_(IS_OPEN, EmbeddingRow.begun_at > now - timedelta(seconds=grace_s))


def parse_keys(keys: Iterable[str]) -> list[RowKey]:
    """Split distinct row keys, in order; what is no row key is left out."""
    parsed = set()
    for key in keys:
        image_id, _, revision = key.rpartition(":")
        # PostgreSQL raises an error for a longer one.
        if len(image_id) > _IMAGE_ID_CHARS:
            continue
        if revision.isascii() and revision.isdecimal() and int(revision) <= _MAX_INT64:
            parsed.add((image_id, int(revision)))
    return sorted(parsed)


def rows_of(collection: str, keys: Sequence[RowKey]) -> ColumnElement[bool]:
    """Select the rows with these keys in the collection."""
    # SQLite uses no index for a list of pairs and would read all of the collection. With the list of ids, both
    # databases find the few candidate rows by index.
    return and_(
        EmbeddingRow.collection == collection,
        EmbeddingRow.image_id.in_({image_id for image_id, _ in keys}),
        tuple_(EmbeddingRow.image_id, EmbeddingRow.image_revision).in_(keys),
    )


def open_rows(
    connection: Connection,
    collection: str,
    begun_at: datetime,
    errors: Mapping[RowKey, str | None],
    where: ColumnElement[bool] | None = None,
) -> None:
    """Write unsettled rows; existing ones are replaced where the condition holds."""
    rows = [
        {
            "image_id": image_id,
            "image_revision": revision,
            "collection": collection,
            "begun_at": begun_at,
            "embedded_at": None,
            "error": error,
        }
        for (image_id, revision), error in sorted(errors.items())
    ]
    upsert(connection, EmbeddingRow, rows, ("begun_at", "embedded_at", "error"), where)


def storable(text: str) -> str:
    """Make a text storable: without NUL and lone surrogates, and cut."""
    return text.encode(errors="replace").decode().replace("\0", "�")[:_MAX_ERROR_CHARS]


def error_text(error: VitrineError) -> str:
    """Format an error for the ledger: its kind, the release where it is a bug, and the message."""
    kind = type(error).__name__
    if isinstance(error, Internal):
        kind = f"{kind} {error.release}"
    return storable(f"{kind}: {error.message}")


def is_bug_of_another_release(error: InstrumentedAttribute[str | None]) -> ColumnElement[bool]:
    """Select errors that were a bug of another release, which this release may have fixed."""
    bug, ours = f"{Internal.__name__} ", f"{Internal.__name__} {RELEASE}: "
    # Redundant, so that databases use the index of the quarantine.
    is_failed = error.is_not(None)
    return and_(
        is_failed, error.startswith(bug, autoescape=True), not_(error.startswith(ours, autoescape=True))
    )


class WithQuarantine(SqlPart):
    """Rows in quarantine, which hold an error, by the collection or model that they belong to."""

    _table: ClassVar[type[EmbeddingRow] | type[CaptionRow]]
    _owner: ClassVar[str]
    """Name of the column that holds the collection or the model."""
    _released: ClassVar[Mapping[str, Any]]
    """Values of a row that has left quarantine and is missing."""

    def retry(self, owner: str) -> int:
        """Release all images from quarantine, so that they are missing again; returns their number."""
        return self._release(owner, self._table.error.is_not(None))

    def retry_bugs(self, owner: str) -> int:
        """Release from quarantine what met a bug of another release of Vitrine; returns the number."""
        bugs = is_bug_of_another_release(self._table.error)
        # Read first: there are rarely any, and a writing transaction blocks others.
        some = select(self._table.image_id).where(self._owned(owner), bugs).limit(1)
        return self._release(owner, bugs) if self._read(some) else 0

    def _release(self, owner: str, which: ColumnElement[bool]) -> int:
        rows = locked(self._table, and_(self._owned(owner), which))
        with writing(self._engine) as connection:
            return connection.execute(update(self._table).where(rows).values(self._released)).rowcount

    def _owned(self, owner: str) -> ColumnElement[bool]:
        return self._table.__table__.c[self._owner] == owner


@dataclass(frozen=True, slots=True)
class IndexProgress:
    """Counts of a collection; `age_s` is the wait of the oldest missing image, 0 where there is none."""

    counts: LedgerCounts
    age_s: float


class SqlIndexProgress(SqlPart):
    """Progress of collections, by reading the ledger row of every image."""

    def of(self, collection: str) -> IndexProgress:
        """Count one collection and find its oldest missing revision."""
        statement = (
            select(
                func.count(ImageRow.id),
                func.count(EmbeddingRow.embedded_at),
                func.count(EmbeddingRow.error),
                func.min(case((IS_OPEN, ImageRow.revision))),
            )
            .select_from(ImageRow)
            .outerjoin(EmbeddingRow, of_current_revision(collection))
        )
        ((images, indexed, failed, oldest),) = self._read(statement)
        counts = LedgerCounts(images, indexed, failed, missing=images - indexed - failed)
        return IndexProgress(counts, 0.0 if oldest is None else seconds_since(oldest, self._clock()))


@dataclass(frozen=True, slots=True)
class Quarantined:
    """An image whose embedding failed."""

    image_id: str
    product_id: str
    revision: int
    error: str


class SqlQuarantine(SqlPart):
    """Images in quarantine."""

    def page(self, collection: str, limit: int) -> list[Quarantined]:
        """Read up to `limit` images whose current revision has failed, oldest revision first."""
        statement = (
            select(ImageRow.id, ImageRow.product_id, ImageRow.revision, EmbeddingRow.error)
            .join(EmbeddingRow, of_current_revision(collection))
            .where(EmbeddingRow.error.is_not(None))
            .order_by(ImageRow.revision, ImageRow.id)
            .limit(limit)
        )
        return [Quarantined(*row) for row in self._read(statement)]


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


def between(column: InstrumentedAttribute[str], first: str, beyond: str | None) -> ColumnElement[bool]:
    """Select image ids with `first <= image id < beyond`."""
    return column >= first if beyond is None else and_(column >= first, column < beyond)
