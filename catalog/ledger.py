"""Embeddings ledger and model versions in SQL: images indexed, missing or obsolete."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    delete,
    func,
    not_,
    or_,
    select,
    true,
    update,
)

from catalog.database import SqlPart, batched_rows, lock, locked, upsert, writing
from catalog.ledger_queries import (
    IS_CURRENT,
    IS_OPEN,
    ITEMS,
    SqlIndexProgress,
    WithQuarantine,
    between,
    error_text,
    in_flight,
    of_current_revision,
    open_rows,
    parse_keys,
    rows_of,
)
from catalog.product_rows import is_product_id
from catalog.tables import EmbeddingRow, ImageRow, IndexStoreRow, ModelVersionRow
from core.errors import VitrineError
from core.types import EncoderInfo, IndexItem, LedgerCounts, Removal, row_key

_INFO = select(*ModelVersionRow.__table__.columns)
_FIELDS = [field.name for field in fields(EncoderInfo) if field.name in _INFO.selected_columns]
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_UNKNOWN = {"begun_at": _LONG_AGO, "embedded_at": None, "error": None}


def _info(row: Row[*tuple[Any, ...]]) -> EncoderInfo:
    found = {name: row._mapping[name] for name in _FIELDS}
    return EncoderInfo(**found | {"modalities": tuple(row.modalities)})


class SqlVersions(SqlPart):
    """History of registered model versions.

    It does not name the live version: the alias in Milvus points at that.
    """

    def settings(self, collection: str) -> dict[str, Any] | None:
        """Read the fields of an encoder's configuration that define this version; None when unknown."""
        found = self._read(select(ModelVersionRow.settings).where(ModelVersionRow.collection == collection))
        return found[0].settings if found else None

    def keep_settings(self, collection: str, settings: Mapping[str, Any]) -> None:
        """Store the configuration of a registered version, so that a rollback can restore it."""
        self._change(collection, settings=dict(settings))

    def choose(self, collection: str) -> None:
        """Record that this registered version is being promoted."""
        self._change(collection, promoted_at=self._clock())

    def retire(self, collection: str) -> None:
        """Record that another version replaces this one."""
        self._change(collection, retired_at=self._clock())

    def retired(self, model: str) -> list[EncoderInfo]:
        """List the versions of a model that others have replaced, the latest first."""
        retired = _INFO.where(ModelVersionRow.name == model, ModelVersionRow.retired_at.is_not(None))
        ordered = retired.order_by(ModelVersionRow.retired_at.desc(), ModelVersionRow.collection)
        return [_info(row) for row in self._read(ordered)]

    def chosen(self, model: str, since: datetime) -> EncoderInfo | None:
        """Read the version that was last promoted, if that was not before `since`."""
        chosen = _INFO.where(ModelVersionRow.name == model, ModelVersionRow.promoted_at >= since)
        found = self._read(chosen.order_by(ModelVersionRow.promoted_at.desc()).limit(1))
        return _info(found[0]) if found else None

    def forget(self, collection: str) -> None:
        """Delete a version and its ledger rows, after its collection was dropped."""
        with writing(self._engine) as connection:
            rows = locked(EmbeddingRow, EmbeddingRow.collection == collection)
            connection.execute(delete(EmbeddingRow).where(rows))
            connection.execute(delete(ModelVersionRow).where(ModelVersionRow.collection == collection))

    def _change(self, collection: str, **values: Any) -> None:
        with writing(self._engine) as connection:
            connection.execute(
                update(ModelVersionRow).where(ModelVersionRow.collection == collection).values(**values)
            )


class SqlLedger(WithQuarantine):
    """Implements `core.ports.Ledger`.

    A row is open, then settled or in quarantine. Opening it resets it from any state. A failure never changes a
    settled row, since its vector is in Milvus.
    """

    _table, _owner = EmbeddingRow, "collection"
    # The rows stay, opened long ago: a vector whose write failed halfway keeps its row.
    _released: ClassVar[Mapping[str, Any]] = {"begun_at": _LONG_AGO, "error": None}

    def register(self, info: EncoderInfo) -> None:
        """Insert or update a model version; it keeps the time of its first registration."""
        values = {name: getattr(info, name) for name in _FIELDS} | {"modalities": list(info.modalities)}
        row = {"collection": info.collection, "created_at": self._clock(), **values}
        with writing(self._engine) as connection:
            upsert(connection, ModelVersionRow, [row], values)

    def versions(self) -> list[EncoderInfo]:
        """List all registered model versions, oldest first."""
        return [
            _info(row)
            for row in self._read(_INFO.order_by(ModelVersionRow.created_at, ModelVersionRow.collection))
        ]

    def missing(
        self, collection: str, limit: int, grace_s: float = 0.0, within: tuple[str, str] | None = None
    ) -> list[IndexItem]:
        """List images whose current revision is neither settled nor in quarantine, oldest revision first.

        `within` asks for those with `first <= image id < beyond`, in the order of their ids: disjoint ranges never
        return the same image. Images that were opened less than `grace_s` seconds ago are left to their writers.
        """
        gap = ITEMS.outerjoin(EmbeddingRow, of_current_revision(collection)).where(
            or_(
                EmbeddingRow.image_id.is_(None),
                and_(IS_OPEN, not_(in_flight(self._clock(), grace_s))),
            )
        )
        if within is None:
            gap = gap.order_by(ImageRow.revision, ImageRow.id)
        else:
            gap = gap.where(between(ImageRow.id, *within)).order_by(ImageRow.id)
        return [IndexItem(*row) for row in self._read(gap.limit(limit))]

    def items(self, product_id: str) -> list[IndexItem]:
        """List the images of one product in their order; empty when the product is missing."""
        if not is_product_id(product_id):
            return []
        statement = ITEMS.where(ImageRow.product_id == product_id).order_by(ImageRow.position)
        return [IndexItem(*row) for row in self._read(statement)]

    def open(self, collection: str, items: Sequence[IndexItem]) -> None:
        """Announce that these rows are about to be written; a former error or settlement is cleared."""
        if not items:
            return
        keys = {(item.image_id, item.revision): None for item in items}
        with writing(self._engine) as connection:
            open_rows(connection, collection, self._clock(), keys)

    def settle(self, collection: str, items: Sequence[IndexItem]) -> list[IndexItem]:
        """Record that Milvus holds these rows; returns those that are obsolete by now or whose row is gone."""
        settled: set[tuple[str, int]] = set()
        with writing(self._engine) as connection:
            for keys in batched_rows([(item.image_id, item.revision) for item in items]):
                rows = rows_of(collection, keys)
                # Locked first: a PostgreSQL statement that waits for a lock evaluates conditions as of before the
                # wait.
                connection.execute(lock(EmbeddingRow, rows))
                found = connection.execute(
                    update(EmbeddingRow)
                    .where(rows, IS_CURRENT)
                    .values(embedded_at=self._clock(), error=None)
                    .returning(EmbeddingRow.image_id, EmbeddingRow.image_revision)
                )
                settled.update((row.image_id, row.image_revision) for row in found)
        return [item for item in items if (item.image_id, item.revision) not in settled]

    def fail(self, collection: str, errors: Sequence[tuple[IndexItem, VitrineError]]) -> None:
        """Put these images into quarantine with their errors; settled ones stay settled."""
        if not errors:
            return
        texts = {(item.image_id, item.revision): error_text(error) for item, error in errors}
        with writing(self._engine) as connection:
            open_rows(connection, collection, self._clock(), texts, where=EmbeddingRow.embedded_at.is_(None))

    def obsolete(
        self, collection: str, limit: int, grace_s: float = 0.0, within: tuple[str, str] | None = None
    ) -> list[str]:
        """List the row keys whose image is gone or has another revision, in their order.

        `within` asks for those with `first <= image id < beyond`. Rows that were opened less than `grace_s`
        seconds ago are left to their writers.
        """
        statement = self._obsolete(collection, grace_s)
        if within is not None:
            statement = statement.where(between(EmbeddingRow.image_id, *within))
        return [row_key(*row) for row in self._read(statement.limit(limit))]

    def _obsolete(self, collection: str, grace_s: float) -> Select[str, int]:
        return (
            select(EmbeddingRow.image_id, EmbeddingRow.image_revision)
            .outerjoin(ImageRow, of_current_revision(collection))
            .where(
                EmbeddingRow.collection == collection,
                ImageRow.id.is_(None),
                not_(in_flight(self._clock(), grace_s)),
            )
            .order_by(EmbeddingRow.image_id, EmbeddingRow.image_revision)
        )

    def begin_removal(self, collection: str, keys: Sequence[str], grace_s: float) -> Removal:
        """Open these rows; returns those whose vectors may be deleted.

        The row of a current image becomes missing and is not returned. Nor are rows that others opened within
        `grace_s`. A key that is no row key has no row, and may be deleted.
        """
        now, ours = self._clock(), set(keys)
        rows = [row for row in parse_keys(keys) if row_key(*row) in ours]
        ours -= {row_key(*row) for row in rows}
        if rows:
            with writing(self._engine) as connection:
                theirs = in_flight(now, grace_s)
                open_rows(connection, collection, now, dict.fromkeys(rows), where=not_(theirs))
                for some in batched_rows(rows):
                    opened = and_(rows_of(collection, some), EmbeddingRow.begun_at == now)
                    found = connection.execute(self._obsolete(collection, 0).where(opened))
                    ours.update(row_key(*row) for row in found)
        return Removal(sorted(ours), now)

    def end_removal(self, collection: str, removal: Removal) -> None:
        """Delete the rows whose vectors were deleted, except those that others changed since it began."""
        untouched = and_(EmbeddingRow.embedded_at.is_(None), EmbeddingRow.begun_at == removal.begun_at)
        with writing(self._engine) as connection:
            for some in batched_rows(parse_keys(removal.keys)):
                rows = and_(rows_of(collection, some), untouched)
                connection.execute(delete(EmbeddingRow).where(locked(EmbeddingRow, rows)))

    def reset(self, collection: str) -> None:
        """Open all rows of a collection that Milvus has lost or may have lost."""
        with writing(self._engine) as connection:
            _open_all(connection, EmbeddingRow.collection == collection)

    def store_id(self) -> str | None:
        """Read the id of the Milvus that the ledger describes; None while there is none."""
        found = self._read(select(IndexStoreRow.store_id))
        return found[0].store_id if found else None

    def make_store_id(self) -> str:
        """Read the id of the Milvus, or create it; concurrent callers get the same."""
        with writing(self._engine) as connection:
            upsert(connection, IndexStoreRow, [{"number": 1, "store_id": uuid.uuid4().hex}])
            return connection.execute(select(IndexStoreRow.store_id)).scalar_one()

    def has_settled(self) -> bool:
        """Return whether any row of any collection is settled."""
        return bool(
            self._read(select(EmbeddingRow.image_id).where(EmbeddingRow.embedded_at.is_not(None)).limit(1))
        )

    def forget_store(self, store_id: str | None) -> None:
        """Forget the Milvus of this id and open all rows; does nothing when the ledger has another id by now."""
        with writing(self._engine) as connection:
            connection.execute(delete(IndexStoreRow).where(IndexStoreRow.store_id == store_id))
            # An id that is left belongs to another process, as do the rows.
            left = connection.scalar(select(IndexStoreRow.store_id))
            if left is None:
                _open_all(connection, true())

    def indexed(self, collection: str, keys: Sequence[str]) -> set[str]:
        """Return those of these row keys that are settled without an error."""
        settled = select(EmbeddingRow.image_id, EmbeddingRow.image_revision)
        settled = settled.where(EmbeddingRow.embedded_at.is_not(None))
        batches = batched_rows(parse_keys(keys))
        rows = self._read(*(settled.where(rows_of(collection, some)) for some in batches))
        return {row_key(*row) for row in rows}

    def settled(self, collection: str, image_ids: Sequence[str]) -> dict[str, str]:
        """Return the key of each image's newest settled row, at any revision, by image id."""
        newest = (
            select(EmbeddingRow.image_id, func.max(EmbeddingRow.image_revision))
            .where(EmbeddingRow.collection == collection, EmbeddingRow.embedded_at.is_not(None))
            .group_by(EmbeddingRow.image_id)
        )
        batches = batched_rows(sorted(set(image_ids)))
        rows = self._read(*(newest.where(EmbeddingRow.image_id.in_(some)) for some in batches))
        return {image_id: row_key(image_id, revision) for image_id, revision in rows}

    def counts(self, collection: str) -> LedgerCounts:
        """Count images, indexed, failed and missing (open ones included) for one collection."""
        return SqlIndexProgress(self._engine).of(collection).counts


def _open_all(connection: Connection, rows: ColumnElement[bool]) -> None:
    # The rows stay, so that a vector that exists after all has its row.
    connection.execute(update(EmbeddingRow).where(locked(EmbeddingRow, rows)).values(_UNKNOWN))
