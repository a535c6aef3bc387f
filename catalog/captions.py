"""Captions of images in SQL."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from sqlalchemy import Connection, and_, delete, func, or_, select, tuple_

from catalog.database import batched_rows, upsert, writing
from catalog.keyword_search import write_documents
from catalog.ledger_queries import WithQuarantine, error_text, storable
from catalog.product_rows import IMAGES, lock_products
from catalog.tables import CaptionRow, ImageRow
from core.errors import VitrineError
from core.types import Caption, CaptionCounts, ProductImage


class SqlCaptions(WithQuarantine):
    """Implements `core.ports.Captions`."""

    _table, _owner = CaptionRow, "model"
    # A row without a version is missing for every version, and keeps its caption.
    _released: ClassVar[Mapping[str, Any]] = {"error": None, "fingerprint": ""}

    def missing(self, model: str, fingerprint: str, limit: int) -> list[ProductImage]:
        """List images that this version has neither captioned nor failed on, oldest revision first."""
        of_model = and_(CaptionRow.image_id == ImageRow.id, CaptionRow.model == model)
        statement = (
            IMAGES.outerjoin(CaptionRow, of_model)
            .where(or_(CaptionRow.image_id.is_(None), CaptionRow.fingerprint != fingerprint))
            .order_by(ImageRow.revision, ImageRow.id)
            .limit(limit)
        )
        return [ProductImage(*row) for row in self._read(statement)]

    def put(self, model: str, fingerprint: str, captions: Sequence[tuple[str, str]]) -> None:
        """Store captions durably by image id, in place of the model's former ones.

        Keyword search finds their products by the new captions from then on.
        """
        texts = {image_id: storable(text) for image_id, text in captions}
        self._write(model, fingerprint, "caption", texts, replaced=("caption", "error", "created_at"))

    def fail(self, model: str, fingerprint: str, errors: Sequence[tuple[str, VitrineError]]) -> None:
        """Put images, by image id, into quarantine for this version; a former caption stays."""
        texts = {image_id: error_text(error) for image_id, error in errors}
        self._write(model, fingerprint, "error", texts, replaced=("error",))

    def quarantined(self, model: str, limit: int) -> tuple[int, dict[str, str]]:
        """Count the images that the model failed on; with the products of the first `limit` by image id."""
        # The window counts the rows before the limit.
        rows = select(ImageRow.id, ImageRow.product_id, func.count().over().label("number"))
        failed = rows.join(CaptionRow, CaptionRow.image_id == ImageRow.id).where(
            CaptionRow.model == model, CaptionRow.error.is_not(None)
        )
        some = self._read(failed.order_by(ImageRow.id).limit(limit))
        return some[0].number if some else 0, {row.id: row.product_id for row in some}

    def of(self, image_ids: Sequence[str]) -> dict[str, list[Caption]]:
        """Read the captions of these images by image id, newest first; images without one are left out."""
        newest = (
            select(CaptionRow.image_id, CaptionRow.model, CaptionRow.caption, CaptionRow.created_at)
            .where(CaptionRow.caption.is_not(None))
            .order_by(CaptionRow.created_at.desc(), CaptionRow.model)
        )
        batches = batched_rows(image_ids)
        found: dict[str, list[Caption]] = defaultdict(list)
        for row in self._read(*(newest.where(CaptionRow.image_id.in_(some)) for some in batches)):
            found[row.image_id].append(Caption(row.model, row.caption, row.created_at))
        return dict(found)

    def counts(self, model: str, fingerprint: str) -> CaptionCounts:
        """Count all images, and those that this version captioned, failed on and lacks."""
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
        ((images, seen, failed),) = self._read(statement)
        return CaptionCounts(images, captioned=seen - failed, failed=failed, missing=images - seen)

    def forget_gone(self) -> int:
        """Delete the rows of images that are no longer in the catalog; returns their number."""
        kept = select(ImageRow.id).where(ImageRow.id == CaptionRow.image_id).exists()
        # Read first: a search of the whole table in a writing transaction would block others.
        gone = [tuple(row) for row in self._read(select(CaptionRow.image_id, CaptionRow.model).where(~kept))]
        for some in batched_rows(gone):
            with writing(self._engine) as connection:
                key = tuple_(CaptionRow.image_id, CaptionRow.model)
                connection.execute(delete(CaptionRow).where(key.in_(some)))
        return len(gone)

    def _write(
        self, model: str, fingerprint: str, column: str, texts: dict[str, str], replaced: Sequence[str]
    ) -> None:
        if not texts:
            return
        new = {"model": model, "fingerprint": fingerprint, "created_at": self._clock()}
        new |= {"caption": None, "error": None}
        with writing(self._engine) as connection:
            # Before any row is written: writers of products take these locks first, too.
            products = sorted(set(_products_of(connection, texts).values()))
            lock_products(connection, products)
            # Images that are gone by now have lost their captions.
            existing = sorted(_products_of(connection, texts))
            rows = [new | {"image_id": each, column: texts[each]} for each in existing]
            upsert(connection, CaptionRow, rows, (*replaced, "fingerprint"))
            write_documents(connection, products)


def _products_of(connection: Connection, image_ids: Iterable[str]) -> dict[str, str]:
    """Read the products of those of the images that exist, by image id."""
    found: dict[str, str] = {}
    for some in batched_rows(sorted(image_ids)):
        rows = connection.execute(select(ImageRow.id, ImageRow.product_id).where(ImageRow.id.in_(some)))
        found.update((row.id, row.product_id) for row in rows)
    return found
