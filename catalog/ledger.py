"""The embeddings ledger and the model versions in SQL: what is indexed, missing or obsolete."""

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


def write_version(connection: Connection, info: EncoderInfo, now: datetime) -> None:
    """Add the version, or renew what is known of it; it keeps the time of its first registration."""
    values = asdict(info) | {"modalities": list(info.modalities)}
    del values["captions"]
    statement = insert_or_replace(connection, ModelVersionRow.metadata.tables[ModelVersionRow.__tablename__])
    connection.execute(
        statement.values(collection=info.collection, created_at=now, **values).on_conflict_do_update(
            index_elements=["collection"], set_=values
        )
    )


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


def read_versions(connection: Connection) -> list[EncoderInfo]:
    """Read all versions, oldest first."""
    rows = connection.execute(_INFO.order_by(ModelVersionRow.created_at, ModelVersionRow.collection))
    return [_info(row) for row in rows]


def read_retired(connection: Connection, model: str) -> list[EncoderInfo]:
    """Read the versions of a model that another has taken over from, the latest first."""
    retired = _INFO.where(ModelVersionRow.name == model, ModelVersionRow.retired_at.is_not(None))
    rows = connection.execute(retired.order_by(ModelVersionRow.retired_at.desc(), ModelVersionRow.collection))
    return [_info(row) for row in rows]


def read_chosen(connection: Connection, model: str, since: datetime) -> EncoderInfo | None:
    """Read the version of a model that was last chosen to take over, if that was not before `since`."""
    chosen = _INFO.where(ModelVersionRow.name == model, ModelVersionRow.promoted_at >= since)
    row = connection.execute(chosen.order_by(ModelVersionRow.promoted_at.desc()).limit(1)).first()
    return None if row is None else _info(row)


def _info(row: Row[*tuple[Any, ...]]) -> EncoderInfo:
    return EncoderInfo(
        name=row.name,
        family=row.family,
        checkpoint=row.checkpoint,
        fingerprint=row.fingerprint,
        dimension=row.dimension,
        modalities=tuple(row.modalities),
        precision=row.precision,
        device=row.device,
    )


class SqlVersions:
    """The history of registered model versions; every method may raise Unavailable.

    Which version is live is not told here: that is what the alias in Milvus points at.
    """

    def __init__(self, engine: Engine, clock: Callable[[], datetime] = utc_now) -> None:
        self._engine = engine
        self._clock = clock

    def settings(self, collection: str) -> dict[str, Any] | None:
        """Those fields of an encoder's configuration that make it this version; None when not known."""
        with reading(self._engine) as connection:
            found: dict[str, Any] | None = connection.scalar(
                select(ModelVersionRow.settings).where(ModelVersionRow.collection == collection)
            )
        return found

    def keep_settings(self, collection: str, settings: Mapping[str, Any]) -> None:
        """Remember how a registered version is configured, so that it can come back."""
        self._change(collection, settings=dict(settings))

    def choose(self, collection: str) -> None:
        """Record that this registered version begins to take over."""
        self._change(collection, promoted_at=self._clock())

    def retire(self, collection: str) -> None:
        """Record that another version takes over from this one."""
        self._change(collection, retired_at=self._clock())

    def retired(self, model: str) -> list[EncoderInfo]:
        """List the versions of a model that another has taken over from, the latest first."""
        with reading(self._engine) as connection:
            return read_retired(connection, model)

    def chosen(self, model: str, since: datetime) -> EncoderInfo | None:
        """Read the version that was last chosen to take over, if that was not before `since`."""
        with reading(self._engine) as connection:
            return read_chosen(connection, model, since)

    def forget(self, collection: str) -> None:
        """Drop a version and its ledger rows, after its collection was dropped."""
        with writing(self._engine) as connection:
            connection.execute(delete(EmbeddingRow).where(locked(EmbeddingRow.collection == collection)))
            connection.execute(delete(ModelVersionRow).where(ModelVersionRow.collection == collection))

    def _change(self, collection: str, **values: Any) -> None:
        with writing(self._engine) as connection:
            connection.execute(
                update(ModelVersionRow).where(ModelVersionRow.collection == collection).values(**values)
            )


_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class SqlLedger:
    """Implements `core.ports.Ledger`; every method may raise Unavailable.

    A row is open, then settled or in quarantine. Opening it again puts it back to open, whatever it was;
    a failure never takes a settled row back, for its vector is in.
    """

    def __init__(self, engine: Engine, clock: Callable[[], datetime] = utc_now) -> None:
        self._engine = engine
        self._clock = clock

    def register(self, info: EncoderInfo) -> None:
        """Remember a model version, or renew what is known of it."""
        with writing(self._engine) as connection:
            write_version(connection, info, self._clock())

    def versions(self) -> list[EncoderInfo]:
        """List all registered model versions, oldest first."""
        with reading(self._engine) as connection:
            return read_versions(connection)

    def missing(self, collection: str, limit: int, grace_s: float = 0.0) -> list[IndexItem]:
        """Images whose current revision is neither settled nor in quarantine, oldest revision first.

        Those that are open since less than `grace_s` seconds are left to whoever opened them.
        """
        statement = self._gap(collection, grace_s).order_by(ImageRow.revision, ImageRow.id).limit(limit)
        with reading(self._engine) as connection:
            return [IndexItem(*row) for row in connection.execute(statement)]

    def missing_between(
        self, collection: str, first: str, beyond: str, limit: int, grace_s: float = 0.0
    ) -> list[IndexItem]:
        """What is missing of the images with `first <= image id < beyond`, in the order of their ids.

        Readers of ranges that do not overlap never get the same image.
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
        """The images of one product in their order; empty when the product is missing."""
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
        """Record that these rows are in; returns those that became obsolete meanwhile, or whose row vanished."""
        settled: set[tuple[str, int]] = set()
        with writing(self._engine) as connection:
            for keys in batched_rows([(item.image_id, item.revision) for item in items]):
                rows = rows_of(collection, keys)
                # Locked first: a statement of PostgreSQL that waits for a lock would judge what is current by
                # what was before it waited.
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
        """Put these images into quarantine with their errors; those that are settled stay so."""
        if not errors:
            return
        texts = {(item.image_id, item.revision): error_text(error) for item, error in errors}
        with writing(self._engine) as connection:
            upsert(connection, collection, self._clock(), texts, where=EmbeddingRow.embedded_at.is_(None))

    def retry(self, collection: str) -> int:
        """Take all images out of quarantine, so that they are missing again; returns how many."""
        return self._retry(collection, EmbeddingRow.error.is_not(None))

    def retry_bugs(self, collection: str) -> int:
        """Take out of quarantine what met a bug of another release of Vitrine; returns how many."""
        bugs = is_bug_of_another_release(EmbeddingRow.error)
        # Looked for first: there are rarely any, and a transaction that writes keeps others waiting.
        some = select(EmbeddingRow.image_id).where(EmbeddingRow.collection == collection, bugs).limit(1)
        with reading(self._engine) as connection:
            if connection.execute(some).first() is None:
                return 0
        return self._retry(collection, bugs)

    def _retry(self, collection: str, which: ColumnElement[bool]) -> int:
        # The rows stay, open since long ago: a vector whose write failed halfway still has its row.
        failed = and_(EmbeddingRow.collection == collection, which)
        with writing(self._engine) as connection:
            return connection.execute(
                update(EmbeddingRow).where(locked(failed)).values(begun_at=_LONG_AGO, error=None)
            ).rowcount

    def obsolete(self, collection: str, limit: int, grace_s: float = 0.0) -> list[str]:
        """Row keys whose image is gone or has another revision, in their order.

        Those that are open since less than `grace_s` seconds are left to whoever opened them.
        """
        statement = self._obsolete(collection, grace_s).limit(limit)
        with reading(self._engine) as connection:
            return [row_key(*row) for row in connection.execute(statement)]

    def obsolete_between(
        self, collection: str, first: str, beyond: str, limit: int, grace_s: float = 0.0
    ) -> list[str]:
        """What is obsolete of the rows with `first <= image id < beyond`, in their order."""
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

        A current image's is not among them: its row becomes missing. Nor are those that somebody else opened
        within `grace_s`. What is no row key has no row, and may be deleted.
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
        """Drop the rows whose vectors were deleted, but those that somebody has touched since it began."""
        untouched = and_(EmbeddingRow.embedded_at.is_(None), EmbeddingRow.begun_at == removal.begun_at)
        with writing(self._engine) as connection:
            for some in batched_rows(parse_keys(removal.keys)):
                rows = and_(rows_of(collection, some), untouched)
                connection.execute(delete(EmbeddingRow).where(locked(rows)))

    def reset(self, collection: str) -> None:
        """Open all rows of a collection that Milvus does not hold any more, or perhaps does not hold."""
        with writing(self._engine) as connection:
            _open_all(connection, EmbeddingRow.collection == collection)

    def store_id(self) -> str | None:
        """Read the id that marks the Milvus which the ledger speaks of; None while it speaks of none."""
        with reading(self._engine) as connection:
            return connection.scalar(select(IndexStoreRow.store_id))

    def make_store_id(self) -> str:
        """Read the id of the Milvus, made now where there is none; callers at once get the same."""
        with writing(self._engine) as connection:
            table = IndexStoreRow.metadata.tables[IndexStoreRow.__tablename__]
            connection.execute(
                insert_or_replace(connection, table)
                .values(number=1, store_id=uuid.uuid4().hex)
                .on_conflict_do_nothing()
            )
            return connection.execute(select(IndexStoreRow.store_id)).scalar_one()

    def has_settled(self) -> bool:
        """Tell whether any row of any collection is settled."""
        settled = select(EmbeddingRow.image_id).where(EmbeddingRow.embedded_at.is_not(None)).limit(1)
        with reading(self._engine) as connection:
            return connection.execute(settled).first() is not None

    def forget_store(self, store_id: str | None) -> None:
        """Forget the Milvus of this id and open all rows; does nothing when the ledger has another id by now."""
        with writing(self._engine) as connection:
            connection.execute(delete(IndexStoreRow).where(IndexStoreRow.store_id == store_id))
            # What is left, or was never there to begin with, is another process's: so are the rows.
            left = connection.scalar(select(IndexStoreRow.store_id))
            if left is None:
                _open_all(connection, true())

    def indexed(self, collection: str, keys: Sequence[str]) -> set[str]:
        """Of these row keys, those that are settled without an error."""
        settled: set[str] = set()
        with reading(self._engine) as connection:
            for some in batched_rows(parse_keys(keys)):
                rows = select(EmbeddingRow.image_id, EmbeddingRow.image_revision).where(
                    rows_of(collection, some), EmbeddingRow.embedded_at.is_not(None)
                )
                settled.update(row_key(*row) for row in connection.execute(rows))
        return settled

    def settled(self, collection: str, image_ids: Sequence[str]) -> dict[str, str]:
        """Of these images, by image id, the key of the newest row that is settled, at whatever revision."""
        found: dict[str, str] = {}
        with reading(self._engine) as connection:
            for some in batched_rows(sorted(set(image_ids))):
                rows = connection.execute(newest_settled(collection, some))
                found |= {image_id: row_key(image_id, revision) for image_id, revision in rows}
        return found

    def counts(self, collection: str) -> LedgerCounts:
        """Count images, indexed, failed and missing (whatever is open) for one collection."""
        return SqlIndexProgress(self._engine).of(collection).counts


def _open_all(connection: Connection, rows: ColumnElement[bool]) -> None:
    # They stay, so that a vector which is there after all has its row.
    unknown = {"begun_at": _LONG_AGO, "embedded_at": None, "error": None}
    connection.execute(update(EmbeddingRow).where(locked(rows)).values(unknown))
