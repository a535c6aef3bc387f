"""Embeddings ledger and model versions in SQL: images indexed, missing or obsolete."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Row,
    Select,
    and_,
    delete,
    not_,
    or_,
    select,
    true,
    update,
)

from catalog.database import batched_rows, insert_or_replace, reading, utc_now, writing
from catalog.ledger_queries import (
    IS_CURRENT,
    IS_OPEN,
    ITEMS,
    SqlIndexProgress,
    error_text,
    in_flight,
    is_bug_of_another_release,
    lock,
    locked,
    newest_settled,
    of_current_revision,
    parse_keys,
    rows_of,
    upsert,
)
from catalog.product_rows import is_product_id
from catalog.tables import EmbeddingRow, ImageRow, IndexStoreRow, ModelVersionRow
from core.errors import VitrineError
from core.types import EncoderInfo, IndexItem, LedgerCounts, Removal, row_key

_INFO = select(
    ModelVersionRow.name,
    ModelVersionRow.family,
    ModelVersionRow.checkpoint,
    ModelVersionRow.fingerprint,
    ModelVersionRow.dimension,
    ModelVersionRow.modalities,
    ModelVersionRow.precision,
    ModelVersionRow.device,
)
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


def _info(row: Row[*tuple[Any, ...]]) -> EncoderInfo:
    return EncoderInfo(**{**row._mapping, "modalities": tuple(row.modalities)})


class SqlVersions:
    """History of registered model versions; every method may raise Unavailable.

    It does not name the live version: the alias in Milvus points at that.
    """

    def __init__(self, engine: Engine, clock: Callable[[], datetime] = utc_now) -> None:
        self._engine = engine
        self._clock = clock

    def settings(self, collection: str) -> dict[str, Any] | None:
        """Read the fields of an encoder's configuration that define this version; None when unknown."""
        with reading(self._engine) as connection:
            found: dict[str, Any] | None = connection.scalar(
                select(ModelVersionRow.settings).where(ModelVersionRow.collection == collection)
            )
        return found

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
        with reading(self._engine) as connection:
            return [_info(row) for row in connection.execute(ordered)]

    def chosen(self, model: str, since: datetime) -> EncoderInfo | None:
        """Read the version that was last promoted, if that was not before `since`."""
        chosen = _INFO.where(ModelVersionRow.name == model, ModelVersionRow.promoted_at >= since)
        with reading(self._engine) as connection:
            row = connection.execute(chosen.order_by(ModelVersionRow.promoted_at.desc()).limit(1)).first()
        return None if row is None else _info(row)

    def forget(self, collection: str) -> None:
        """Delete a version and its ledger rows, after its collection was dropped."""
        with writing(self._engine) as connection:
            connection.execute(delete(EmbeddingRow).where(locked(EmbeddingRow.collection == collection)))
            connection.execute(delete(ModelVersionRow).where(ModelVersionRow.collection == collection))

    def _change(self, collection: str, **values: Any) -> None:
        with writing(self._engine) as connection:
            connection.execute(
                update(ModelVersionRow).where(ModelVersionRow.collection == collection).values(**values)
            )


class SqlLedger:
    """Implements `core.ports.Ledger`; every method may raise Unavailable.

    A row is open, then settled or in quarantine. Opening it resets it from any state. A failure never changes a
    settled row, since its vector is in Milvus.
    """

    def __init__(self, engine: Engine, clock: Callable[[], datetime] = utc_now) -> None:
        self._engine = engine
        self._clock = clock

    def register(self, info: EncoderInfo) -> None:
        """Insert or update a model version; it keeps the time of its first registration."""
        with writing(self._engine) as connection:
            values = asdict(info) | {"modalities": list(info.modalities)}
            del values["captions"]
            table = ModelVersionRow.metadata.tables[ModelVersionRow.__tablename__]
            statement = insert_or_replace(connection, table).values(
                collection=info.collection, created_at=self._clock(), **values
            )
            connection.execute(statement.on_conflict_do_update(index_elements=["collection"], set_=values))

    def versions(self) -> list[EncoderInfo]:
        """List all registered model versions, oldest first."""
        ordered = _INFO.order_by(ModelVersionRow.created_at, ModelVersionRow.collection)
        with reading(self._engine) as connection:
            return [_info(row) for row in connection.execute(ordered)]

    def missing(self, collection: str, limit: int, grace_s: float = 0.0) -> list[IndexItem]:
        """List images whose current revision is neither settled nor in quarantine, oldest revision first.

        Images that were opened less than `grace_s` seconds ago are left to their writers.
        """
        statement = self._gap(collection, grace_s).order_by(ImageRow.revision, ImageRow.id).limit(limit)
        with reading(self._engine) as connection:
            return [IndexItem(*row) for row in connection.execute(statement)]

    def missing_between(
        self, collection: str, first: str, beyond: str, limit: int, grace_s: float = 0.0
    ) -> list[IndexItem]:
        """List what is missing of the images with `first <= image id < beyond`, in the order of their ids.

        Disjoint ranges never return the same image.
        """
        between = and_(ImageRow.id >= first, ImageRow.id < beyond)
        statement = self._gap(collection, grace_s).where(between).order_by(ImageRow.id).limit(limit)
        with reading(self._engine) as connection:
            return [IndexItem(*row) for row in connection.execute(statement)]

    def _gap(self, collection: str, grace_s: float) -> Select[Any]:
        return ITEMS.outerjoin(EmbeddingRow, of_current_revision(collection)).where(
            or_(
                EmbeddingRow.image_id.is_(None),
                and_(IS_OPEN, not_(in_flight(self._clock(), grace_s))),
            )
        )

    def items(self, product_id: str) -> list[IndexItem]:
        """List the images of one product in their order; empty when the product is missing."""
        if not is_product_id(product_id):
            return []
        statement = ITEMS.where(ImageRow.product_id == product_id).order_by(ImageRow.position)
        with reading(self._engine) as connection:
            return [IndexItem(*row) for row in connection.execute(statement)]

    def open(self, collection: str, items: Sequence[IndexItem]) -> None:
        """Announce that these rows are about to be written; a former error or settlement is cleared."""
        if not items:
            return
        keys = {(item.image_id, item.revision): None for item in items}
        with writing(self._engine) as connection:
            upsert(connection, collection, self._clock(), keys)

    def settle(self, collection: str, items: Sequence[IndexItem]) -> list[IndexItem]:
        """Record that Milvus holds these rows; returns those that are obsolete by now or whose row is gone."""
        settled: set[tuple[str, int]] = set()
        with writing(self._engine) as connection:
            for keys in batched_rows([(item.image_id, item.revision) for item in items]):
                rows = rows_of(collection, keys)
                # Locked first: a PostgreSQL statement that waits for a lock evaluates conditions as of before the
                # wait.
                connection.execute(lock(rows))
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
            upsert(connection, collection, self._clock(), texts, where=EmbeddingRow.embedded_at.is_(None))

    def retry(self, collection: str) -> int:
        """Release all images from quarantine, so that they are missing again; returns their number."""
        return self._retry(collection, EmbeddingRow.error.is_not(None))

    def retry_bugs(self, collection: str) -> int:
        """Release from quarantine what met a bug of another release of Vitrine; returns the number."""
        bugs = is_bug_of_another_release(EmbeddingRow.error)
        # Read first: there are rarely any, and a writing transaction blocks others.
        some = select(EmbeddingRow.image_id).where(EmbeddingRow.collection == collection, bugs).limit(1)
        with reading(self._engine) as connection:
            if connection.execute(some).first() is None:
                return 0
        return self._retry(collection, bugs)

    def _retry(self, collection: str, which: ColumnElement[bool]) -> int:
        # The rows stay, opened long ago: a vector whose write failed halfway keeps its row.
        failed = and_(EmbeddingRow.collection == collection, which)
        with writing(self._engine) as connection:
            return connection.execute(
                update(EmbeddingRow).where(locked(failed)).values(begun_at=_LONG_AGO, error=None)
            ).rowcount

    def obsolete(self, collection: str, limit: int, grace_s: float = 0.0) -> list[str]:
        """List the row keys whose image is gone or has another revision, in their order.

        Rows that were opened less than `grace_s` seconds ago are left to their writers.
        """
        statement = self._obsolete(collection, grace_s).limit(limit)
        with reading(self._engine) as connection:
            return [row_key(*row) for row in connection.execute(statement)]

    def obsolete_between(
        self, collection: str, first: str, beyond: str, limit: int, grace_s: float = 0.0
    ) -> list[str]:
        """List what is obsolete of the rows with `first <= image id < beyond`, in their order."""
        between = and_(EmbeddingRow.image_id >= first, EmbeddingRow.image_id < beyond)
        statement = self._obsolete(collection, grace_s).where(between).limit(limit)
        with reading(self._engine) as connection:
            return [row_key(*row) for row in connection.execute(statement)]

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
                upsert(connection, collection, now, dict.fromkeys(rows), where=not_(theirs))
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
                connection.execute(delete(EmbeddingRow).where(locked(rows)))

    def reset(self, collection: str) -> None:
        """Open all rows of a collection that Milvus has lost or may have lost."""
        with writing(self._engine) as connection:
            _open_all(connection, EmbeddingRow.collection == collection)

    def store_id(self) -> str | None:
        """Read the id of the Milvus that the ledger describes; None while there is none."""
        with reading(self._engine) as connection:
            return connection.scalar(select(IndexStoreRow.store_id))

    def make_store_id(self) -> str:
        """Read the id of the Milvus, or create it; concurrent callers get the same."""
        with writing(self._engine) as connection:
            table = IndexStoreRow.metadata.tables[IndexStoreRow.__tablename__]
            connection.execute(
                insert_or_replace(connection, table)
                .values(number=1, store_id=uuid.uuid4().hex)
                .on_conflict_do_nothing()
            )
            return connection.execute(select(IndexStoreRow.store_id)).scalar_one()

    def has_settled(self) -> bool:
        """Return whether any row of any collection is settled."""
        settled = select(EmbeddingRow.image_id).where(EmbeddingRow.embedded_at.is_not(None)).limit(1)
        with reading(self._engine) as connection:
            return connection.execute(settled).first() is not None

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
        settled: set[str] = set()
        with reading(self._engine) as connection:
            for some in batched_rows(parse_keys(keys)):
                rows = select(EmbeddingRow.image_id, EmbeddingRow.image_revision).where(
                    rows_of(collection, some), EmbeddingRow.embedded_at.is_not(None)
                )
                settled.update(row_key(*row) for row in connection.execute(rows))
        return settled

    def settled(self, collection: str, image_ids: Sequence[str]) -> dict[str, str]:
        """Return the key of each image's newest settled row, at any revision, by image id."""
        found: dict[str, str] = {}
        with reading(self._engine) as connection:
            for some in batched_rows(sorted(set(image_ids))):
                rows = connection.execute(newest_settled(collection, some))
                found |= {image_id: row_key(image_id, revision) for image_id, revision in rows}
        return found

    def counts(self, collection: str) -> LedgerCounts:
        """Count images, indexed, failed and missing (open ones included) for one collection."""
        return SqlIndexProgress(self._engine).of(collection).counts


def _open_all(connection: Connection, rows: ColumnElement[bool]) -> None:
    # The rows stay, so that a vector that exists after all has its row.
    unknown = {"begun_at": _LONG_AGO, "embedded_at": None, "error": None}
    connection.execute(update(EmbeddingRow).where(locked(rows)).values(unknown))
