"""Walks over everything that the catalog holds, for whoever checks that it agrees with the rest."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Engine, Select, and_, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute

from catalog.chunks import chunks
from catalog.ledger_rows import parse_keys, rows_of
from catalog.tables import EmbeddingRow, ImageRow
from catalog.transactions import reading
from core.types import row_key

RowState = Literal["settled", "failed", "open"]
_PAGE = 5_000


@dataclass(frozen=True, slots=True)
class StoredPicture:
    """A picture as it should be found everywhere: whose it is, its row key, and its file."""

    key: str
    product_id: str
    sha256: str
    bytes: int


class SqlAudit:
    """Reads all pictures, and all ledger rows of a collection, a page a transaction.

    What is written meanwhile may be in or not. Every method may raise Unavailable.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def pictures(self, first: str = "", beyond: str | None = None) -> Iterator[StoredPicture]:
        """Walk the pictures with `first <= image id < beyond` in the order of their ids, by default all."""
        columns = (ImageRow.id, ImageRow.revision, ImageRow.product_id, ImageRow.sha256, ImageRow.bytes)
        within = select(*columns).where(_between(ImageRow.id, first, beyond))
        ordered = within.order_by(ImageRow.id).limit(_PAGE)
        after = ""
        while page := self._read(ordered.where(ImageRow.id > after)):
            yield from (
                StoredPicture(row_key(row.id, row.revision), row.product_id, row.sha256, row.bytes)
                for row in page
            )
            after = page[-1].id

    def rows(
        self, collection: str, first: str = "", beyond: str | None = None
    ) -> Iterator[tuple[str, RowState]]:
        """Walk the ledger rows of a collection, by default all, each row key with its state."""
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
        """Of these row keys, those that the ledger has a row for, in whatever state."""
        found: set[str] = set()
        for some in chunks(parse_keys(keys)):
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
