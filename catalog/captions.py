"""Captions in SQL: what models have written about pictures, what is missing, what failed."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Table,
    and_,
    delete,
    func,
    or_,
    select,
    tuple_,
    update,
)

from catalog.chunks import chunks
from catalog.clock import utc_now
from catalog.dialects import insert_or_replace
from catalog.ledger_rows import error_text, is_bug_of_another_release, storable
from catalog.lexical.documents import write_documents
from catalog.product_rows import PICTURES, lock_product
from catalog.tables import CaptionRow, ImageRow
from catalog.transactions import reading, writing
from core.errors import VitrineError
from core.types import Caption, CaptionCounts, Picture

_TABLE: Table = CaptionRow.metadata.tables[CaptionRow.__tablename__]
_KEY = ["image_id", "model"]


class SqlCaptions:
    """Implements `core.ports.Captions`; every method may raise Unavailable."""

    def __init__(self, engine: Engine, clock: Callable[[], datetime] = utc_now) -> None:
        self._engine = engine
        self._clock = clock

    def missing(self, model: str, fingerprint: str, limit: int) -> list[Picture]:
        """Pictures that this version has neither captioned nor failed on, oldest revision first."""
        of_model = and_(CaptionRow.image_id == ImageRow.id, CaptionRow.model == model)
        statement = (
            PICTURES.outerjoin(CaptionRow, of_model)
            .where(or_(CaptionRow.image_id.is_(None), CaptionRow.fingerprint != fingerprint))
            .order_by(ImageRow.revision, ImageRow.id)
            .limit(limit)
        )
        with reading(self._engine) as connection:
            return [Picture(*row) for row in connection.execute(statement)]

    def put(self, model: str, fingerprint: str, captions: Sequence[tuple[str, str]]) -> None:
        """Store captions durably, each after its image id, in the place of the model's former ones.

        Their products are found by the new words from then on.
        """
        texts = {image_id: storable(text) for image_id, text in captions}
        self._write(model, fingerprint, "caption", texts, replaced=("caption", "error", "created_at"))

    def fail(self, model: str, fingerprint: str, errors: Sequence[tuple[str, VitrineError]]) -> None:
        """Put these pictures, by image id, into quarantine for this version; a former caption stays."""
        texts = {image_id: error_text(error) for image_id, error in errors}
        self._write(model, fingerprint, "error", texts, replaced=("error",))

    def quarantined(self, model: str, limit: int) -> tuple[int, dict[str, str]]:
        """Count the pictures that the model has failed on; with the products of the first by image id."""
        failed = and_(CaptionRow.model == model, CaptionRow.error.is_not(None))
        rows = select(ImageRow.id, ImageRow.product_id).join(CaptionRow, CaptionRow.image_id == ImageRow.id)
        number = select(func.count()).select_from(ImageRow)
        number = number.join(CaptionRow, CaptionRow.image_id == ImageRow.id)
        with reading(self._engine) as connection:
            some = connection.execute(rows.where(failed).order_by(ImageRow.id).limit(limit))
            products = {row.id: row.product_id for row in some}
            return connection.scalars(number.where(failed)).one(), products

    def retry(self, model: str) -> int:
        """Take all pictures of the model out of quarantine, so that they are missing; counts them."""
        return self._retry(model, CaptionRow.error.is_not(None))

    def retry_bugs(self, model: str) -> int:
        """Take out of quarantine what met a bug of another release of Vitrine; counts them."""
        bugs = is_bug_of_another_release(CaptionRow.error)
        # Looked for first: there are rarely any, and a transaction that writes keeps others waiting.
        some = select(CaptionRow.image_id).where(CaptionRow.model == model, bugs).limit(1)
        with reading(self._engine) as connection:
            if connection.execute(some).first() is None:
                return 0
        return self._retry(model, bugs)

    def _retry(self, model: str, which: ColumnElement[bool]) -> int:
        # A row without a version is missing for every version, and keeps a caption that it had before.
        with writing(self._engine) as connection:
            return connection.execute(
                update(CaptionRow).where(CaptionRow.model == model, which).values(error=None, fingerprint="")
            ).rowcount

    def of(self, image_ids: Sequence[str]) -> dict[str, list[Caption]]:
        """The captions of these pictures by image id, newest first; pictures without one are left out."""
        found: dict[str, list[Caption]] = defaultdict(list)
        with reading(self._engine) as connection:
            for some in chunks(image_ids):
                rows = (
                    select(*_TABLE.columns)
                    .where(CaptionRow.image_id.in_(some), CaptionRow.caption.is_not(None))
                    .order_by(CaptionRow.created_at.desc(), CaptionRow.model)
                )
                for row in connection.execute(rows):
                    found[row.image_id].append(Caption(row.model, row.caption, row.created_at))
        return dict(found)

    def counts(self, model: str, fingerprint: str) -> CaptionCounts:
        """Count pictures, and those that this version has captioned, failed on and not seen yet."""
        of_version = and_(
            CaptionRow.image_id == ImageRow.id,
            CaptionRow.model == model,
            CaptionRow.fingerprint == fingerprint,
        )
        statement = (
            select(func.count(ImageRow.id), func.count(CaptionRow.image_id), func.count(CaptionRow.error))
            .select_from(ImageRow)
            .outerjoin(CaptionRow, of_version)
        )
        with reading(self._engine) as connection:
            pictures, seen, failed = connection.execute(statement).one()
        return CaptionCounts(pictures, captioned=seen - failed, failed=failed, missing=pictures - seen)

    def forget_gone(self) -> int:
        """Drop the rows of pictures that the catalog does not hold any more; counts them."""
        gone = (
            select(CaptionRow.image_id, CaptionRow.model)
            .outerjoin(ImageRow, ImageRow.id == CaptionRow.image_id)
            .where(ImageRow.id.is_(None))
        )
        with reading(self._engine) as connection:
            keys = [tuple(row) for row in connection.execute(gone)]
        for some in chunks(keys):
            with writing(self._engine) as connection:
                key = tuple_(CaptionRow.image_id, CaptionRow.model)
                connection.execute(delete(CaptionRow).where(key.in_(some)))
        return len(keys)

    def _write(
        self, model: str, fingerprint: str, column: str, texts: dict[str, str], replaced: Sequence[str]
    ) -> None:
        if not texts:
            return
        empty = {"caption": None, "error": None}
        now = self._clock()
        rows = [
            {"image_id": image_id, "model": model, "fingerprint": fingerprint, "created_at": now}
            | empty
            | {column: text}
            for image_id, text in sorted(texts.items())
        ]
        with writing(self._engine) as connection:
            # Before any row is written: writers of products take this lock first too.
            products = _lock_products_of(connection, sorted(texts))
            # An image that has gone by then took its captions with it.
            existing = _existing(connection, sorted(texts))
            rows = [row for row in rows if row["image_id"] in existing]
            if not rows:
                return
            statement = insert_or_replace(connection, _TABLE)
            changes = {name: statement.excluded[name] for name in (*replaced, "fingerprint")}
            connection.execute(statement.on_conflict_do_update(index_elements=_KEY, set_=changes), rows)
            write_documents(connection, products)


def _existing(connection: Connection, image_ids: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for some in chunks(image_ids):
        found.update(connection.scalars(select(ImageRow.id).where(ImageRow.id.in_(some))))
    return found


def _lock_products_of(connection: Connection, image_ids: Sequence[str]) -> list[str]:
    """Take the locks of the products that have these pictures, in the order of their ids."""
    found: set[str] = set()
    for some in chunks(image_ids):
        found.update(connection.scalars(select(ImageRow.product_id).where(ImageRow.id.in_(some))))
    for product_id in sorted(found):
        lock_product(connection, product_id)
    return sorted(found)
