"""Embeddings ledger and model versions in SQL: images indexed, missing or obsolete."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    bindparam,
    delete,
    not_,
    or_,
    select,
    true,
    tuple_,
    update,
)

from catalog.database import (
    SqlPart,
    batched_rows,
    lock,
    locked,
    prefer_indexes,
    reading,
    upsert,
    writing,
)
from catalog.ledger_queries import (
    IS_CURRENT,
    IS_WAITING,
    ITEMS,
    LedgerKey,
    SqlIndexProgress,
    WithQuarantine,
    abandoned,
    between,
    error_text,
    in_flight,
    is_bug_of_another_release,
    lock_ledger,
    lock_versions,
    of_current_revision,
    open_rows,
    parse_keys,
    record,
    rows_of,
    rows_with,
    version_state,
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
        version = ModelVersionRow.collection == collection
        rows = locked(EmbeddingRow, EmbeddingRow.collection == collection)
        # The many rows first, since writers of products wait for whoever changes the list of versions. With another
        # time of creation, whoever saw all the rows before no longer records the version.
        with writing(self._engine) as connection:
            unrecorded = {"recorded": False, "created_at": self._clock()}
            connection.execute(update(ModelVersionRow).where(version).values(unrecorded))
            connection.execute(delete(EmbeddingRow).where(rows))
        with writing(self._engine) as connection:
            lock_versions(connection)
            connection.execute(delete(EmbeddingRow).where(rows))
            connection.execute(delete(ModelVersionRow).where(version))

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
        """Insert or update a model version; it keeps the time of its first registration.

        Every write of a product that begins afterwards opens rows in its collection.
        """
        known = self._read(_INFO.where(ModelVersionRow.collection == info.collection))
        if known and _info(known[0]) == replace(info, captions=None, matching=None):
            return
        values = {name: getattr(info, name) for name in _FIELDS} | {"modalities": list(info.modalities)}
        row = {"collection": info.collection, "created_at": self._clock(), **values}
        with writing(self._engine) as connection:
            lock_versions(connection)
            upsert(connection, ModelVersionRow, [row], values)

    def versions(self) -> list[EncoderInfo]:
        """List all registered model versions, oldest first."""
        return [
            _info(row)
            for row in self._read(_INFO.order_by(ModelVersionRow.created_at, ModelVersionRow.collection))
        ]

    def unsettled(self, grace_s: float = 0.0) -> set[str]:
        """Return the registered collections in which something may be missing, obsolete or to be tried again.

        These have rows that were opened at least `grace_s` ago, or images that met a bug of another release, or are
        not recorded yet. One statement looks for one such row in each collection.
        """
        of_version = select(EmbeddingRow.image_id).where(
            EmbeddingRow.collection == ModelVersionRow.collection
        )
        statement = select(ModelVersionRow.collection).where(
            or_(
                not_(ModelVersionRow.recorded),
                of_version.where(abandoned(self._clock(), grace_s)).exists(),
                of_version.where(is_bug_of_another_release(EmbeddingRow.error)).exists(),
            )
        )
        return {row.collection for row in self._read(statement, by_index=True)}

    def missing(
        self, collection: str, limit: int, grace_s: float = 0.0, within: tuple[str, str] | None = None
    ) -> list[IndexItem]:
        """List images whose current revision is neither settled nor in quarantine.

        Images that were opened less than `grace_s` seconds ago are left to their writers. Of a recorded version this
        reads open rows alone, those first that were opened first. Of another one it compares all images with their
        rows, oldest revision first, and the version becomes recorded once every image has a row.

        `within` asks for those with `first <= image id < beyond`, in the order of their ids: disjoint ranges never
        return the same image. It always compares images with rows.
        """
        with reading(self._engine) as connection:
            state = version_state(connection, collection)
            if state is not None and state.recorded and within is None:
                opened = (
                    ITEMS.join(EmbeddingRow, of_current_revision(collection))
                    .where(EmbeddingRow.collection == collection, abandoned(self._clock(), grace_s))
                    .order_by(EmbeddingRow.begun_at, EmbeddingRow.image_id, EmbeddingRow.image_revision)
                )
                prefer_indexes(connection)
                return [IndexItem(*row) for row in connection.execute(opened.limit(limit))]
            has_row = EmbeddingRow.image_id.is_not(None)
            gap = (
                ITEMS.add_columns(has_row)
                .outerjoin(EmbeddingRow, of_current_revision(collection))
                .where(or_(not_(has_row), abandoned(self._clock(), grace_s)))
            )
            if within is None:
                gap = gap.order_by(ImageRow.revision, ImageRow.id)
            else:
                gap = gap.where(between(ImageRow.id, *within)).order_by(ImageRow.id)
            found = connection.execute(gap.limit(limit)).all()
        if within is None and len(found) < limit and all(row[-1] for row in found):
            record(self._engine, collection, state)
        return [IndexItem(*row[:-1]) for row in found]

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
        with writing(self._engine) as connection:
            open_rows(connection, _keys(collection, items), self._clock())

    def settle(self, items: Mapping[str, Sequence[IndexItem]]) -> dict[str, list[IndexItem]]:
        """Record that Milvus holds these rows, by collection, in one transaction.

        Returns those that are obsolete by now or whose row is gone, by collection; an empty list where all are well.
        """
        keys = sorted({key for collection, some in items.items() for key in _keys(collection, some)})
        settled: set[LedgerKey] = set()
        if keys:
            with writing(self._engine) as connection:
                lock_ledger(
                    connection, (item.product_id for some in items.values() for item in some), shared=True
                )
                for some in batched_rows(keys):
                    rows = rows_with(some)
                    # Locked first: a PostgreSQL statement that waits for a lock evaluates conditions as of before
                    # the wait.
                    connection.execute(lock(EmbeddingRow, rows))
                    found = connection.execute(
                        update(EmbeddingRow)
                        .where(rows, IS_CURRENT)
                        .values(embedded_at=self._clock(), error=None)
                        .returning(
                            EmbeddingRow.image_id, EmbeddingRow.image_revision, EmbeddingRow.collection
                        )
                    )
                    settled.update((each[0], each[1], each[2]) for each in found)
        return {
            collection: [each for each in some if (each.image_id, each.revision, collection) not in settled]
            for collection, some in items.items()
        }

    def fail(self, collection: str, errors: Sequence[tuple[IndexItem, VitrineError]]) -> None:
        """Put these images into quarantine with their errors; settled ones stay settled, obsolete ones open."""
        if not errors:
            return
        texts = {(item.image_id, item.revision): error_text(error) for item, error in errors}
        unsettled = EmbeddingRow.embedded_at.is_(None)
        with writing(self._engine) as connection:
            lock_ledger(connection, (item.product_id for item, _ in errors), shared=True)
            keys = [(*key, collection) for key in texts]
            # This locks them, too.
            open_rows(connection, keys, self._clock(), where=unsettled)
            connection.execute(
                update(EmbeddingRow)
                .where(
                    EmbeddingRow.image_id == bindparam("of_image"),
                    EmbeddingRow.image_revision == bindparam("of_revision"),
                    EmbeddingRow.collection == collection,
                    unsettled,
                    IS_CURRENT,
                )
                .values(error=bindparam("message")),
                [
                    {"of_image": image_id, "of_revision": revision, "message": message}
                    for (image_id, revision), message in texts.items()
                ],
            )

    def obsolete(
        self, collection: str, limit: int, grace_s: float = 0.0, within: tuple[str, str] | None = None
    ) -> list[str]:
        """List the row keys whose image is gone or has another revision, those first that were opened first.

        Rows that were opened less than `grace_s` seconds ago are left to their writers. While the row of the
        current revision is neither settled nor in quarantine, the oldest other row of its image waits: its vector
        can be copied, and the product is found by it meanwhile.

        `within` asks for those with `first <= image id < beyond`, in the order of their keys, and reads all rows:
        verification trusts no state.
        """
        rows = select(EmbeddingRow.image_id, EmbeddingRow.image_revision).where(
            EmbeddingRow.collection == collection, not_(IS_CURRENT), not_(IS_WAITING)
        )
        if within is None:
            rows = rows.where(abandoned(self._clock(), grace_s)).order_by(EmbeddingRow.begun_at)
        else:
            theirs = in_flight(self._clock(), grace_s)
            rows = rows.where(not_(theirs), between(EmbeddingRow.image_id, *within))
        ordered = rows.order_by(EmbeddingRow.image_id, EmbeddingRow.image_revision).limit(limit)
        return [row_key(*row) for row in self._read(ordered, by_index=within is None)]

    def begin_removal(self, collection: str, keys: Sequence[str], grace_s: float) -> Removal:
        """Open these rows; returns those whose vectors may be deleted.

        The row of a current image becomes missing and is not returned. Nor are rows that others opened within
        `grace_s`. A key that is no row key has no row, and may be deleted.
        """
        now, ours = self._clock(), set(keys)
        rows = [(*row, collection) for row in parse_keys(keys) if row_key(*row) in ours]
        ours -= {row_key(image_id, revision) for image_id, revision, _ in rows}
        if rows:
            with writing(self._engine) as connection:
                theirs = in_flight(now, grace_s)
                open_rows(connection, rows, now, where=not_(theirs))
                for some in batched_rows(rows):
                    opened = rows_with(some), EmbeddingRow.begun_at == now, not_(IS_CURRENT)
                    found = connection.execute(
                        select(EmbeddingRow.image_id, EmbeddingRow.image_revision).where(*opened)
                    )
                    ours.update(row_key(*row) for row in found)
        return Removal(sorted(ours), now)

    def end_removal(self, removals: Mapping[str, Removal]) -> None:
        """Delete the rows whose vectors were deleted, by collection, except those that others changed since then."""
        keys = sorted(
            (image_id, revision, collection, removal.begun_at)
            for collection, removal in removals.items()
            for image_id, revision in parse_keys(removal.keys)
        )
        if not keys:
            return
        unsettled = EmbeddingRow.embedded_at.is_(None)
        with writing(self._engine) as connection:
            for some in batched_rows(keys):
                untouched = tuple_(
                    EmbeddingRow.image_id,
                    EmbeddingRow.image_revision,
                    EmbeddingRow.collection,
                    EmbeddingRow.begun_at,
                ).in_(some)
                ids = {image_id for image_id, *_ in some}
                rows = and_(EmbeddingRow.image_id.in_(ids), untouched, unsettled)
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

    def copies(self, info: EncoderInfo, image_ids: Sequence[str]) -> dict[str, list[tuple[str, str]]]:
        """Return where else the vector of each image may be: collections with row keys, newest first, by image id.

        These are the image's rows at other revisions in the version's collection, and all its rows in collections
        of the same weights with another `index_schema`, in any state. Images without any are left out.
        """
        siblings = select(ModelVersionRow.collection).where(
            ModelVersionRow.name == info.name,
            ModelVersionRow.fingerprint == info.fingerprint,
            ModelVersionRow.collection != info.collection,
        )
        of_this = and_(EmbeddingRow.collection == info.collection, not_(IS_CURRENT))
        rows = (
            select(EmbeddingRow.image_id, EmbeddingRow.collection, EmbeddingRow.image_revision)
            .where(or_(of_this, EmbeddingRow.collection.in_(siblings)))
            .order_by(EmbeddingRow.image_revision.desc(), EmbeddingRow.collection)
        )
        batches = batched_rows(sorted(set(image_ids)))
        found: dict[str, list[tuple[str, str]]] = {}
        for image_id, collection, revision in self._read(
            *(rows.where(EmbeddingRow.image_id.in_(some)) for some in batches)
        ):
            found.setdefault(image_id, []).append((collection, row_key(image_id, revision)))
        return found

    def counts(self, collection: str) -> LedgerCounts:
        """Count images, indexed, failed and missing (open ones included) for one collection."""
        return SqlIndexProgress(self._engine).of(collection).counts


def _keys(collection: str, items: Sequence[IndexItem]) -> set[LedgerKey]:
    return {(item.image_id, item.revision, collection) for item in items}


def _open_all(connection: Connection, rows: ColumnElement[bool]) -> None:
    # The rows stay, so that a vector that exists after all has its row.
    connection.execute(update(EmbeddingRow).where(locked(EmbeddingRow, rows)).values(_UNKNOWN))
