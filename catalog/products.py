"""Products and the captions of their images in SQL."""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
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

from catalog.database import batched_rows, insert_or_replace, reading, utc_now, writing
from catalog.image_files import drop_images, lock_files, named_files
from catalog.keyword_search import write_documents
from catalog.ledger_queries import error_text, is_bug_of_another_release, storable
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

_CAPTIONS: Table = CaptionRow.metadata.tables[CaptionRow.__tablename__]
_CAPTION_KEY = ["image_id", "model"]
_LOOKS_AT_ONCE = 8
"""Files that a put looks for at once; other writers wait for its transaction."""
_IMAGE_ID = re.compile(r"[0-9a-f]{32}")


class SqlCaptions:
    """Implements `core.ports.Captions`; every method may raise Unavailable."""

    def __init__(self, engine: Engine, clock: Callable[[], datetime] = utc_now) -> None:
        self._engine = engine
        self._clock = clock

    def missing(self, model: str, fingerprint: str, limit: int) -> list[ProductImage]:
        """List images that this version has neither captioned nor failed on, oldest revision first."""
        of_model = and_(CaptionRow.image_id == ImageRow.id, CaptionRow.model == model)
        statement = (
            IMAGES.outerjoin(CaptionRow, of_model)
            .where(or_(CaptionRow.image_id.is_(None), CaptionRow.fingerprint != fingerprint))
            .order_by(ImageRow.revision, ImageRow.id)
            .limit(limit)
        )
        with reading(self._engine) as connection:
            return [ProductImage(*row) for row in connection.execute(statement)]

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
        failed = and_(CaptionRow.model == model, CaptionRow.error.is_not(None))
        rows = select(ImageRow.id, ImageRow.product_id).join(CaptionRow, CaptionRow.image_id == ImageRow.id)
        number = select(func.count()).select_from(ImageRow)
        number = number.join(CaptionRow, CaptionRow.image_id == ImageRow.id)
        with reading(self._engine) as connection:
            some = connection.execute(rows.where(failed).order_by(ImageRow.id).limit(limit))
            products = {row.id: row.product_id for row in some}
            return connection.scalars(number.where(failed)).one(), products

    def retry(self, model: str) -> int:
        """Release all images of the model from quarantine, so that they are missing; returns their number."""
        return self._retry(model, CaptionRow.error.is_not(None))

    def retry_bugs(self, model: str) -> int:
        """Release from quarantine what met a bug of another release of Vitrine; returns the number."""
        bugs = is_bug_of_another_release(CaptionRow.error)
        # Read first: there are rarely any, and a writing transaction blocks others.
        some = select(CaptionRow.image_id).where(CaptionRow.model == model, bugs).limit(1)
        with reading(self._engine) as connection:
            if connection.execute(some).first() is None:
                return 0
        return self._retry(model, bugs)

    def _retry(self, model: str, which: ColumnElement[bool]) -> int:
        # A row without a version is missing for every version, and keeps its caption.
        with writing(self._engine) as connection:
            return connection.execute(
                update(CaptionRow).where(CaptionRow.model == model, which).values(error=None, fingerprint="")
            ).rowcount

    def of(self, image_ids: Sequence[str]) -> dict[str, list[Caption]]:
        """Read the captions of these images by image id, newest first; images without one are left out."""
        found: dict[str, list[Caption]] = defaultdict(list)
        with reading(self._engine) as connection:
            for some in batched_rows(image_ids):
                rows = (
                    select(*_CAPTIONS.columns)
                    .where(CaptionRow.image_id.in_(some), CaptionRow.caption.is_not(None))
                    .order_by(CaptionRow.created_at.desc(), CaptionRow.model)
                )
                for row in connection.execute(rows):
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
        with reading(self._engine) as connection:
            images, seen, failed = connection.execute(statement).one()
        return CaptionCounts(images, captioned=seen - failed, failed=failed, missing=images - seen)

    def forget_gone(self) -> int:
        """Delete the rows of images that are no longer in the catalog; returns their number."""
        gone = (
            select(CaptionRow.image_id, CaptionRow.model)
            .outerjoin(ImageRow, ImageRow.id == CaptionRow.image_id)
            .where(ImageRow.id.is_(None))
        )
        with reading(self._engine) as connection:
            keys = [tuple(row) for row in connection.execute(gone)]
        for some in batched_rows(keys):
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
            # Before any row is written: writers of products take these locks first, too.
            products = _lock_products_of(connection, sorted(texts))
            # Images that are gone by now have lost their captions.
            existing = _existing_images(connection, sorted(texts))
            rows = [row for row in rows if row["image_id"] in existing]
            if not rows:
                return
            statement = insert_or_replace(connection, _CAPTIONS)
            changes = {name: statement.excluded[name] for name in (*replaced, "fingerprint")}
            connection.execute(
                statement.on_conflict_do_update(index_elements=_CAPTION_KEY, set_=changes), rows
            )
            write_documents(connection, products)


def _existing_images(connection: Connection, image_ids: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for some in batched_rows(image_ids):
        found.update(connection.scalars(select(ImageRow.id).where(ImageRow.id.in_(some))))
    return found


def _lock_products_of(connection: Connection, image_ids: Sequence[str]) -> list[str]:
    """Take the locks of the products that have these images, in the order of their ids."""
    found: set[str] = set()
    for some in batched_rows(image_ids):
        found.update(connection.scalars(select(ImageRow.product_id).where(ImageRow.id.in_(some))))
    for product_id in sorted(found):
        lock_product(connection, product_id)
    return sorted(found)


class SqlProducts:
    """The catalog's products; every method may raise Unavailable. Safe to call from several processes."""

    def __init__(self, engine: Engine, blobs: Blobs, clock: Callable[[], datetime] = utc_now) -> None:
        self._engine = engine
        self._blobs = blobs
        self._clock = clock

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
        self._have_files({sha256: each for sha256, each in wanted.images or () if sha256 in new}, connection)
        drop_images(connection, dropped, now)

    def _have_files(self, files: dict[str, NewImage], connection: Connection) -> None:
        """Store files again that were removed meanwhile; under their locks they stay."""

        def have(sha256: str) -> None:
            if self._blobs.size(sha256) is None:
                self._blobs.put(files[sha256].data)

        # Files that images name cannot have been removed.
        doubtful = sorted(files.keys() - named_files(connection, files))
        with ThreadPoolExecutor(_LOOKS_AT_ONCE, "files") as pool:
            for looked in [pool.submit(have, each) for each in doubtful]:
                looked.result()

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
        first = select(ImageRow.product_id).order_by(ImageRow.id)
        with reading(self._engine) as connection:
            ids: dict[str, None] = {}
            for product_id in connection.scalars(first.limit(8 * count)):
                ids[product_id] = None
                if len(ids) == count:
                    break
            found = read_products(connection, list(ids))
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
        if _IMAGE_ID.fullmatch(image_id):
            with reading(self._engine) as connection:
                row = connection.execute(IMAGES.where(ImageRow.id == image_id)).one_or_none()
            if row is not None:
                return ProductImage(*row)
        raise NotFound(f"there is no image {image_id!r:.60}")

    def counts(self) -> tuple[int, int]:
        """Count products and images, both at the same moment."""
        products = select(func.count()).select_from(ProductRow).scalar_subquery()
        images = select(func.count()).select_from(ImageRow).scalar_subquery()
        with reading(self._engine) as connection:
            row = connection.execute(select(products, images)).one()
        return row[0], row[1]


def _no_product(product_id: str) -> NotFound:
    return NotFound(f"there is no product {product_id!r:.220}")
