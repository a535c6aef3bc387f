"""Products and the captions of their images in SQL."""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import Connection, Engine, and_, delete, func, or_, select, tuple_

from catalog.database import SqlPart, batched_rows, reading, upsert, utc_now, writing
from catalog.image_files import drop_images, lock_files, named_files
from catalog.keyword_search import write_documents
from catalog.ledger_queries import WithQuarantine, error_text, storable
from catalog.product_rows import (
    IMAGES,
    Wanted,
    check_attributes,
    check_new_product_id,
    check_product_id,
    check_texts,
    is_product_id,
    lock_product,
    next_revision,
    raise_revision_floor,
    read_products,
    revision_floor,
    succeed,
    write_product,
)
from catalog.tables import CaptionRow, ImageRow, ProductRow
from core.errors import NotFound, VitrineError
from core.ports import Blobs
from core.types import Attributes, Caption, CaptionCounts, NewImage, Product, ProductImage

_LOOKS_AT_ONCE = 8
"""Files that a put looks for at once; other writers wait for its transaction."""
_IMAGE_ID = re.compile(r"[0-9a-f]{32}")


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
        new = {"model": model, "fingerprint": fingerprint, "created_at": self._clock()}
        new |= {"caption": None, "error": None}
        with writing(self._engine) as connection:
            # Before any row is written: writers of products take these locks first, too.
            products = sorted(set(_products_of(connection, texts).values()))
            for product_id in products:
                lock_product(connection, product_id)
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


class SqlProducts(SqlPart):
    """The catalog's products; every method may raise Unavailable. Safe to call from several processes."""

    def __init__(self, engine: Engine, blobs: Blobs, clock: Callable[[], datetime] = utc_now) -> None:
        super().__init__(engine, clock)
        self._blobs = blobs

    def put(
        self,
        product_id: str,
        title: str,
        description: str,
        attributes: Attributes,
        images: Sequence[NewImage] | None,
    ) -> tuple[Product, bool]:
        """Create or replace a product durably; returns it and whether it is new.

        `images=None` keeps the images, an empty sequence removes them all. A repeated file counts once, at its
        first place. An identical put changes nothing, neither a revision nor `updated_at`. The image files are
        durable before the transaction begins; it checks them again, since a removal may have deleted them
        meanwhile (`catalog.image_files`).

        Raises:
            InvalidInput: the id, a text or an attribute cannot be stored; the message says which and why.
        """
        check_new_product_id(product_id)
        check_texts(title, description)
        check_attributes(attributes)
        stored = None if images is None else [(self._blobs.put(each.data), each) for each in images]
        wanted = Wanted(product_id, title, description, json.loads(json.dumps(dict(attributes))), stored)
        with writing(self._engine, bounded=True) as connection:
            lock_product(connection, product_id)
            previous = read_products(connection, [product_id]).get(product_id)
            last = revision_floor(connection) if previous is None else previous.revision
            now = self._clock()
            product = succeed(previous, wanted, next_revision(last, now), now)
            if product is not previous:
                self._change_files(connection, previous, product, wanted, now)
                write_product(connection, previous, product)
        return product, previous is None

    def _change_files(
        self,
        connection: Connection,
        previous: Product | None,
        product: Product,
        wanted: Wanted,
        now: datetime,
    ) -> None:
        """Ensure that newly named files exist, and mark those that are no longer named."""
        before = {each.image_id: each.sha256 for each in (previous.images if previous else ())}
        after = {each.image_id: each.sha256 for each in product.images}
        dropped = [each for each in before.items() if each[0] not in after]
        new = {sha256 for image_id, sha256 in after.items() if image_id not in before}
        lock_files(connection, new.union(sha256 for _, sha256 in dropped))
        files = dict(wanted.images or ())

        def have(sha256: str) -> None:
            """Store a file again that was removed meanwhile; under its lock it stays."""
            if self._blobs.size(sha256) is None:
                self._blobs.put(files[sha256].data)

        with ThreadPoolExecutor(_LOOKS_AT_ONCE, "files") as pool:
            # Files that images name cannot have been removed.
            list(pool.map(have, sorted(new - named_files(connection, new))))
        drop_images(connection, dropped, now)

    def get(self, product_id: str) -> Product:
        """Read one product.

        Raises:
            NotFound: there is none of that id.
        """
        product = self.get_many([product_id]).get(product_id)
        if product is None:
            raise _no_product(product_id)
        return product

    def get_many(self, product_ids: Sequence[str]) -> dict[str, Product]:
        """Read those of the products that exist, in the order of the given ids."""
        wanted = [each for each in dict.fromkeys(product_ids) if is_product_id(each)]
        with reading(self._engine) as connection:
            found = read_products(connection, wanted)
        return {each: found[each] for each in wanted if each in found}

    def page(self, limit: int, after: str | None = None) -> list[Product]:
        """Read up to `limit` products beyond `after`, ordered by id (by code point).

        Raises:
            InvalidInput: `after` cannot be a product id.
        """
        ids = select(ProductRow.id).order_by(ProductRow.id).limit(limit)
        if after is not None:
            check_product_id(after, "after")
            ids = ids.where(ProductRow.id > after)
        with reading(self._engine) as connection:
            page = list(connection.scalars(ids))
            # Both statements see one state of the database.
            found = read_products(connection, page)
        return [found[each] for each in page]

    def sample(self, count: int) -> list[Product]:
        """Draw up to `count` products that have images; the same ones as long as they exist.

        It takes those whose images have the smallest ids. Ids are hashes, so this is a random draw, weighted by
        the number of images, that an index answers for a catalog of any size.
        """
        first = select(ImageRow.product_id).order_by(ImageRow.id).limit(8 * count)
        with reading(self._engine) as connection:
            ids = list(dict.fromkeys(connection.scalars(first)))[:count]
            found = read_products(connection, ids)
        return [found[each] for each in ids]

    def delete(self, product_id: str) -> None:
        """Delete a product and its images durably; its ledger rows become obsolete, its files unnamed.

        Raises:
            NotFound: there is none of that id.
        """
        if not is_product_id(product_id):
            raise _no_product(product_id)
        with writing(self._engine, bounded=True) as connection:
            lock_product(connection, product_id)
            revision = connection.scalar(select(ProductRow.revision).where(ProductRow.id == product_id))
            if revision is None:
                raise _no_product(product_id)
            images = connection.execute(
                select(ImageRow.id, ImageRow.sha256).where(ImageRow.product_id == product_id)
            )
            dropped = [(row.id, row.sha256) for row in images]
            lock_files(connection, [sha256 for _, sha256 in dropped])
            drop_images(connection, dropped, self._clock())
            # All products share this row. It is locked last, so that its holder never waits for a file. A put of
            # this product reads it only under the product's lock.
            raise_revision_floor(connection, revision)
            connection.execute(delete(ProductRow).where(ProductRow.id == product_id))

    def image(self, image_id: str) -> ProductImage:
        """Read one image.

        Raises:
            NotFound: there is none of that id.
        """
        if _IMAGE_ID.fullmatch(image_id) and (found := self._read(IMAGES.where(ImageRow.id == image_id))):
            return ProductImage(*found[0])
        raise NotFound(f"there is no image {image_id!r:.60}")

    def counts(self) -> tuple[int, int]:
        """Count products and images, both at the same moment."""
        products = select(func.count()).select_from(ProductRow).scalar_subquery()
        images = select(func.count()).select_from(ImageRow).scalar_subquery()
        ((*counts,),) = self._read(select(products, images))
        return counts[0], counts[1]


def _no_product(product_id: str) -> NotFound:
    return NotFound(f"there is no product {product_id!r:.220}")
