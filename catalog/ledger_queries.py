"""Queries of the embeddings ledger: statement parts, progress, quarantine and audit."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Select,
    and_,
    case,
    false,
    func,
    not_,
    select,
    tuple_,
)
from sqlalchemy.orm import InstrumentedAttribute

from catalog.database import batched_rows, insert_or_replace, reading, utc_now
from catalog.product_rows import seconds_since
from catalog.tables import EmbeddingRow, ImageRow, ProductRow
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


def newest_settled(collection: str, image_ids: Sequence[str]) -> Select[str, int]:
    """Select the highest settled revision of each of these images in the collection."""
    return (
        select(EmbeddingRow.image_id, func.max(EmbeddingRow.image_revision))
        .where(
            EmbeddingRow.collection == collection,
            EmbeddingRow.image_id.in_(image_ids),
            EmbeddingRow.embedded_at.is_not(None),
        )
        .group_by(EmbeddingRow.image_id)
    )


def lock(condition: ColumnElement[bool]) -> Select[str, str, int]:
    """Select the rows and lock them in the order of their keys, so that overlapping writers never deadlock.

    SQLite has one writer at a time.
    """
    rows = select(EmbeddingRow.collection, EmbeddingRow.image_id, EmbeddingRow.image_revision)
    ordered = rows.where(condition).order_by(EmbeddingRow.image_id, EmbeddingRow.image_revision)
    return ordered.with_for_update()


def locked(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """Select the same rows, locked as by `lock` within the statement."""
    row = tuple_(EmbeddingRow.collection, EmbeddingRow.image_id, EmbeddingRow.image_revision)
    return row.in_(lock(condition))


def upsert(
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
    statement = insert_or_replace(connection, EmbeddingRow.metadata.tables[EmbeddingRow.__tablename__])
    new = statement.excluded
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["image_id", "image_revision", "collection"],
            set_={"begun_at": new.begun_at, "embedded_at": new.embedded_at, "error": new.error},
            where=where,
        ),
        rows,
    )


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


@dataclass(frozen=True, slots=True)
class IndexProgress:
    """Counts of a collection; `age_s` is the wait of the oldest missing image, 0 where there is none."""

    counts: LedgerCounts
    age_s: float


class SqlIndexProgress:
    """Progress of collections, by reading the ledger row of every image; may raise Unavailable."""

    def __init__(self, engine: Engine, clock: Callable[[], datetime] = utc_now) -> None:
        self._engine = engine
        self._clock = clock

    def of(self, collection: str) -> IndexProgress:
        """Count one collection and find its oldest missing revision."""
        lacking = and_(EmbeddingRow.embedded_at.is_(None), EmbeddingRow.error.is_(None))
        statement = (
            select(
                func.count(ImageRow.id),
                func.count(EmbeddingRow.embedded_at),
                func.count(EmbeddingRow.error),
                func.min(case((lacking, ImageRow.revision))),
            )
            .select_from(ImageRow)
            .outerjoin(EmbeddingRow, of_current_revision(collection))
        )
        with reading(self._engine) as connection:
            images, indexed, failed, oldest = connection.execute(statement).one()
        counts = LedgerCounts(images, indexed, failed, missing=images - indexed - failed)
        return IndexProgress(counts, 0.0 if oldest is None else seconds_since(oldest, self._clock()))


@dataclass(frozen=True, slots=True)
class Quarantined:
    """An image whose embedding failed."""

    image_id: str
    product_id: str
    revision: int
    error: str


class SqlQuarantine:
    """Images in quarantine; may raise Unavailable."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def page(self, collection: str, limit: int) -> list[Quarantined]:
        """Read up to `limit` images whose current revision has failed, oldest revision first."""
        statement = (
            select(ImageRow.id, ImageRow.product_id, ImageRow.revision, EmbeddingRow.error)
            .join(EmbeddingRow, of_current_revision(collection))
            .where(EmbeddingRow.error.is_not(None))
            .order_by(ImageRow.revision, ImageRow.id)
            .limit(limit)
        )
        with reading(self._engine) as connection:
            return [
                Quarantined(image_id, product_id, revision, str(error))
                for image_id, product_id, revision, error in connection.execute(statement)
            ]


RowState = Literal["settled", "failed", "open"]


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image as all stores should hold it: its row key, product and file."""

    key: str
    product_id: str
    sha256: str
    bytes: int


class SqlAudit:
    """Reads all images, and all ledger rows of a collection, one page a transaction.

    Concurrent writes may be included or not. Every method may raise Unavailable.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def images(self, first: str = "", beyond: str | None = None) -> Iterator[StoredImage]:
        """Iterate over the images with `first <= image id < beyond` in the order of their ids, by default all."""
        columns = (ImageRow.id, ImageRow.revision, ImageRow.product_id, ImageRow.sha256, ImageRow.bytes)
        within = select(*columns).where(_between(ImageRow.id, first, beyond))
        ordered = within.order_by(ImageRow.id).limit(_PAGE)
        after = ""
        while page := self._read(ordered.where(ImageRow.id > after)):
            yield from (
                StoredImage(row_key(row.id, row.revision), row.product_id, row.sha256, row.bytes)
                for row in page
            )
            after = page[-1].id

    def rows(
        self, collection: str, first: str = "", beyond: str | None = None
    ) -> Iterator[tuple[str, RowState]]:
        """Iterate over the ledger rows of a collection, by default all, as row keys with states."""
        columns = (
            EmbeddingRow.image_id,
            EmbeddingRow.image_revision,
            EmbeddingRow.embedded_at,
            EmbeddingRow.error,
        )
        ordered = (
            select(*columns)
            .where(EmbeddingRow.collection == collection, _between(EmbeddingRow.image_id, first, beyond))
            .order_by(EmbeddingRow.image_id, EmbeddingRow.image_revision)
            .limit(_PAGE)
        )
        after = ("", 0)
        while page := self._read(
            ordered.where(tuple_(EmbeddingRow.image_id, EmbeddingRow.image_revision) > after)
        ):
            yield from ((row_key(row.image_id, row.image_revision), _state(row)) for row in page)
            after = (page[-1].image_id, page[-1].image_revision)

    def known(self, collection: str, keys: Sequence[str]) -> set[str]:
        """Return those of these row keys that the ledger has in any state."""
        found: set[str] = set()
        for some in batched_rows(parse_keys(keys)):
            columns = select(EmbeddingRow.image_id, EmbeddingRow.image_revision)
            found.update(row_key(*row) for row in self._read(columns.where(rows_of(collection, some))))
        return found

    def _read(self, statement: Select[*tuple[Any, ...]]) -> Sequence[Any]:
        with reading(self._engine) as connection:
            return connection.execute(statement).all()


def _between(column: InstrumentedAttribute[str], first: str, beyond: str | None) -> ColumnElement[bool]:
    return column >= first if beyond is None else and_(column >= first, column < beyond)


def _state(row: Any) -> RowState:
    if row.error is not None:
        return "failed"
    return "open" if row.embedded_at is None else "settled"
