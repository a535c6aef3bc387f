"""The parts that the ledger's statements are made of."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, Select, and_, false, func, not_, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute

from catalog.dialects import insert_or_replace
from catalog.tables import EmbeddingRow, ImageRow, ProductRow
from core.errors import RELEASE, Internal, VitrineError

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
"""The columns in the order of `IndexItem`'s fields."""

IS_OPEN = and_(EmbeddingRow.embedded_at.is_(None), EmbeddingRow.error.is_(None))

IS_CURRENT = (
    select(ImageRow.id)
    .where(ImageRow.id == EmbeddingRow.image_id, ImageRow.revision == EmbeddingRow.image_revision)
    .exists()
)
"""The row is of a picture that the catalog has, at its revision."""

_IMAGE_ID_CHARS = 32
_MAX_INT64 = 2**63 - 1
_MAX_ERROR_CHARS = 2_000


def of_current_revision(collection: str) -> ColumnElement[bool]:
    """Join a picture with its row in the collection: the one of the picture's own revision."""
    return and_(
        EmbeddingRow.image_id == ImageRow.id,
        EmbeddingRow.image_revision == ImageRow.revision,
        EmbeddingRow.collection == collection,
    )


def in_flight(now: datetime, grace_s: float) -> ColumnElement[bool]:
    """Rows that are open since less than `grace_s`: another writer is probably at work on them."""
    # No grace means none, even when the clock of the machine that opened the row is ahead.
    if grace_s <= 0:
        return false()
    return and_(IS_OPEN, EmbeddingRow.begun_at > now - timedelta(seconds=grace_s))


def parse_keys(keys: Iterable[str]) -> list[RowKey]:
    """Split row keys, each once and in order; what is no row key names no row and is left out."""
    parsed = set()
    for key in keys:
        image_id, _, revision = key.rpartition(":")
        # PostgreSQL refuses a longer one, as an error.
        if len(image_id) > _IMAGE_ID_CHARS:
            continue
        if revision.isascii() and revision.isdecimal() and int(revision) <= _MAX_INT64:
            parsed.add((image_id, int(revision)))
    return sorted(parsed)


def rows_of(collection: str, keys: Sequence[RowKey]) -> ColumnElement[bool]:
    """The rows with these keys in the collection."""
    # SQLite looks up no index for a list of pairs and would read the whole collection: the list of ids
    # lets it, and PostgreSQL likewise, go straight to the few rows that the pairs then choose from.
    return and_(
        EmbeddingRow.collection == collection,
        EmbeddingRow.image_id.in_({image_id for image_id, _ in keys}),
        tuple_(EmbeddingRow.image_id, EmbeddingRow.image_revision).in_(keys),
    )


def newest_settled(collection: str, image_ids: Sequence[str]) -> Select[str, int]:
    """Select, for each of these pictures that the collection holds, the highest revision that is in."""
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
    """Select the rows and lock them in the order of their keys: writers that overlap wait and never deadlock.

    PostgreSQL documents that row locks are to be taken in one order; SQLite has one writer anyway.
    """
    rows = select(EmbeddingRow.collection, EmbeddingRow.image_id, EmbeddingRow.image_revision)
    ordered = rows.where(condition).order_by(EmbeddingRow.image_id, EmbeddingRow.image_revision)
    return ordered.with_for_update()


def locked(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """The same rows, locked as by `lock` within the statement."""
    row = tuple_(EmbeddingRow.collection, EmbeddingRow.image_id, EmbeddingRow.image_revision)
    return row.in_(lock(condition))


def upsert(
    connection: Connection,
    collection: str,
    begun_at: datetime,
    errors: Mapping[RowKey, str | None],
    where: ColumnElement[bool] | None = None,
) -> None:
    """Write unsettled rows; those that exist are replaced where the condition holds."""
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
    """Cut an error to what every database can hold."""
    return text.encode(errors="replace").decode().replace("\0", "�")[:_MAX_ERROR_CHARS]


def error_text(error: VitrineError) -> str:
    """Write an error as the ledger keeps it: its kind, for a bug the release that has it, and the message."""
    kind = type(error).__name__
    if isinstance(error, Internal):
        kind = f"{kind} {error.release}"
    return storable(f"{kind}: {error.message}")


def is_bug_of_another_release(error: InstrumentedAttribute[str | None]) -> ColumnElement[bool]:
    """Errors that were a bug of Vitrine, and that this release has not seen: it may have mended it."""
    bug, ours = f"{Internal.__name__} ", f"{Internal.__name__} {RELEASE}: "
    # Said beside, so that databases use the index of what is in quarantine.
    is_failed = error.is_not(None)
    return and_(
        is_failed, error.startswith(bug, autoescape=True), not_(error.startswith(ours, autoescape=True))
    )
