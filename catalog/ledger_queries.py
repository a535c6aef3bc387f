"""Queries of the embeddings ledger: statement parts, rows of a write, progress and quarantine."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Row,
    and_,
    case,
    false,
    func,
    not_,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.orm import InstrumentedAttribute, aliased

from catalog.database import (
    SqlPart,
    batched_rows,
    lock,
    locked,
    prefer_indexes,
    reading,
    take_turns,
    upsert,
    writing,
)
from catalog.product_rows import lock_by_ids, seconds_since
from catalog.tables import CaptionRow, EmbeddingRow, ImageRow, ModelVersionRow, ProductRow
from core.errors import RELEASE, Internal, VitrineError
from core.types import IndexItem, IndexWork, LedgerCounts, Product, row_key

RowKey = tuple[str, int]
"""An image id with a revision."""
LedgerKey = tuple[str, int, str]
"""An image id with a revision and a collection: the primary key of the ledger."""

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

_Other = aliased(EmbeddingRow)
_image = select(ImageRow.id).where(ImageRow.id == EmbeddingRow.image_id)
_successor_is_done = _image.join(
    _Other, and_(_Other.image_id == ImageRow.id, _Other.image_revision == ImageRow.revision)
).where(
    _Other.collection == EmbeddingRow.collection,
    or_(_Other.embedded_at.is_not(None), _Other.error.is_not(None)),
)
_older = select(_Other.image_id).where(
    _Other.image_id == EmbeddingRow.image_id,
    _Other.collection == EmbeddingRow.collection,
    _Other.image_revision < EmbeddingRow.image_revision,
)
IS_WAITING = and_(_image.exists(), not_(_successor_is_done.exists()), not_(_older.exists()))
"""Condition on a row that is not current: its vector serves until that of the current revision is written.

Only the oldest row of an image waits. So a version that nobody writes to keeps one vector of each image, however
often its product changes.
"""

_VERSIONS_LOCK = (0x7669, 0x7473)
"""PostgreSQL's advisory lock of the list of versions: keys of two numbers never meet the locks of products."""
_IMAGE_ID_CHARS = 32
_MAX_INT64 = 2**63 - 1
_MAX_ERROR_CHARS = 2_000


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


def abandoned(now: datetime, grace_s: float) -> ColumnElement[bool]:
    """Select open rows that no writer holds: those that were opened at least `grace_s` ago."""
    if grace_s <= 0:
        return IS_OPEN
    return and_(IS_OPEN, EmbeddingRow.begun_at <= now - timedelta(seconds=grace_s))


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


def rows_with(keys: Sequence[LedgerKey]) -> ColumnElement[bool]:
    """Select the rows with these keys, in any collections."""
    return and_(
        EmbeddingRow.image_id.in_({image_id for image_id, _, _ in keys}),
        tuple_(EmbeddingRow.image_id, EmbeddingRow.image_revision, EmbeddingRow.collection).in_(keys),
    )


def open_rows(
    connection: Connection,
    keys: Collection[LedgerKey],
    begun_at: datetime,
    where: ColumnElement[bool] | None = None,
) -> None:
    """Write open rows; existing ones are replaced where the condition holds, and locked in any case."""
    rows = [
        {
            "image_id": image_id,
            "image_revision": revision,
            "collection": collection,
            "begun_at": begun_at,
            "embedded_at": None,
            "error": None,
        }
        for image_id, revision, collection in sorted(keys)
    ]
    upsert(connection, EmbeddingRow, rows, ("begun_at", "embedded_at", "error"), where)


def lock_versions(connection: Connection, shared: bool = False) -> None:
    """Lock the list of versions: shared by writers of products, alone by whoever adds or removes a version.

    So a write of a product either opens its rows of a new version, or has ended before that version is there.
    """
    take_turns(connection, _VERSIONS_LOCK, shared)


def lock_ledger(connection: Connection, product_ids: Iterable[str], shared: bool = False) -> None:
    """Lock the ledger rows of these products: shared by whoever settles or fails rows, alone by a write.

    A write locks the rows that it finds. A row that a build inserts after that could be settled before the write
    ends, and its image would no longer be current. A write takes these locks late: nobody who settles waits for
    its files.
    """
    function = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
    lock_by_ids(connection, product_ids, function, 1)


def open_changed(
    connection: Connection,
    before: Mapping[str, Product],
    after: Mapping[str, Product | None],
    now: datetime,
) -> dict[str, IndexWork]:
    """Open the rows of images that a write replaces, drops or leaves unsettled; returns the work by product id.

    The caller holds the locks of the versions and the products. A row of a former image that a writer holds open is
    left to that writer.
    """
    collections = sorted(connection.scalars(select(ModelVersionRow.collection)))
    old = {(each.image_id, each.revision) for product in before.values() for each in product.images}
    lock_ledger(connection, before)
    settled: set[LedgerKey] = set()
    closed: dict[RowKey, list[str]] = defaultdict(list)
    for row in _lock_all(connection, sorted(old)):
        if row.embedded_at is not None:
            settled.add((row.image_id, row.image_revision, row.collection))
        if row.embedded_at is not None or row.error is not None:
            closed[row.image_id, row.image_revision].append(row.collection)
    works: dict[str, IndexWork] = {}
    opened: set[LedgerKey] = set()
    for product_id in before.keys() | after.keys():
        items = _items(after.get(product_id))
        missing: dict[str, list[IndexItem]] = {each: [] for each in collections}
        obsolete: dict[str, list[str]] = defaultdict(list)
        for collection in collections:
            for item in items:
                key = item.image_id, item.revision, collection
                if key not in settled:
                    missing[collection].append(item)
                    opened.add(key)
        former = before.get(product_id)
        kept = {(item.image_id, item.revision) for item in items}
        for image in former.images if former else ():
            if (image.image_id, image.revision) not in kept:
                for collection in closed[image.image_id, image.revision]:
                    obsolete[collection].append(row_key(image.image_id, image.revision))
                    opened.add((image.image_id, image.revision, collection))
        works[product_id] = IndexWork(now, missing, dict(obsolete))
    open_rows(connection, opened, now)
    return works


def _lock_all(connection: Connection, keys: Sequence[RowKey]) -> Iterator[Row[*tuple[Any, ...]]]:
    """Lock the rows of these images in all collections, and read their states."""
    # Locked first, so that they cannot be settled meanwhile: PostgreSQL skips rows that do not meet a condition yet.
    for some in batched_rows(keys):
        rows = and_(
            EmbeddingRow.image_id.in_({image_id for image_id, _ in some}),
            tuple_(EmbeddingRow.image_id, EmbeddingRow.image_revision).in_(some),
        )
        columns = EmbeddingRow.embedded_at, EmbeddingRow.error
        yield from connection.execute(lock(EmbeddingRow, rows).add_columns(*columns))


def _items(product: Product | None) -> list[IndexItem]:
    if product is None:
        return []
    return [
        IndexItem(each.image_id, each.revision, each.product_id, each.sha256, product.attributes, each.bytes)
        for each in product.images
    ]


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


@dataclass(frozen=True, slots=True)
class VersionState:
    """A registered version: whether its collection has a row for every image, and when it was registered."""

    recorded: bool
    created_at: datetime


def version_state(connection: Connection, collection: str) -> VersionState | None:
    """Read the state of a version; None where it is not registered."""
    columns = select(ModelVersionRow.recorded, ModelVersionRow.created_at)
    found = connection.execute(columns.where(ModelVersionRow.collection == collection)).first()
    return None if found is None else VersionState(*found)


def record(engine: Engine, collection: str, state: VersionState | None) -> None:
    """Note that a registered version was seen to have a row for every image.

    Every write of a product since it was registered has opened its rows, so this stays true.
    """
    if state is None or state.recorded:
        return
    with writing(engine) as connection:
        same = ModelVersionRow.collection == collection, ModelVersionRow.created_at == state.created_at
        connection.execute(update(ModelVersionRow).where(*same).values(recorded=True))


class SqlIndexProgress(SqlPart):
    """Progress of collections.

    Of a recorded version it reads the open and the failed rows alone, otherwise the ledger row of every image.
    """

    def of(self, collection: str) -> IndexProgress:
        """Count one collection and find its oldest missing revision."""
        with reading(self._engine) as connection:
            state = version_state(connection, collection)
            if state is not None and state.recorded:
                return self._of_recorded(connection, collection)
            statement = (
                select(
                    func.count(ImageRow.id),
                    func.count(EmbeddingRow.image_id),
                    func.count(EmbeddingRow.embedded_at),
                    func.count(EmbeddingRow.error),
                    func.min(case((IS_OPEN, ImageRow.revision))),
                )
                .select_from(ImageRow)
                .outerjoin(EmbeddingRow, of_current_revision(collection))
            )
            images, rows, indexed, failed, oldest = connection.execute(statement).one()
        if images == rows:
            record(self._engine, collection, state)
        return self._progress(LedgerCounts(images, indexed, failed, images - indexed - failed), oldest)

    def _of_recorded(self, connection: Connection, collection: str) -> IndexProgress:
        images = connection.scalar(select(func.count()).select_from(ImageRow)) or 0
        prefer_indexes(connection)
        quarantine = EmbeddingRow.collection == collection, EmbeddingRow.error.is_not(None)
        failed = connection.scalar(select(func.count()).select_from(EmbeddingRow).where(*quarantine)) or 0
        gap = (
            select(func.count(), func.min(EmbeddingRow.image_revision))
            .select_from(EmbeddingRow)
            .join(ImageRow, of_current_revision(collection))
            .where(EmbeddingRow.collection == collection, IS_OPEN)
        )
        missing, oldest = connection.execute(gap).one()
        return self._progress(LedgerCounts(images, images - failed - missing, failed, missing), oldest)

    def _progress(self, counts: LedgerCounts, oldest: int | None) -> IndexProgress:
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
            .select_from(EmbeddingRow)
            .join(ImageRow, of_current_revision(collection))
            .where(EmbeddingRow.collection == collection, EmbeddingRow.error.is_not(None))
            .order_by(EmbeddingRow.image_revision, EmbeddingRow.image_id)
            .limit(limit)
        )
        return [Quarantined(*row) for row in self._read(statement)]


def between(column: InstrumentedAttribute[str], first: str, beyond: str | None) -> ColumnElement[bool]:
    """Select image ids with `first <= image id < beyond`."""
    return column >= first if beyond is None else and_(column >= first, column < beyond)
