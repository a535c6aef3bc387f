"""Products in SQL: any number of operations in one transaction, and reads."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, func, select

from catalog.database import SqlPart, reading, utc_now, writing
from catalog.image_files import drop_images, lock_files, named_files
from catalog.ledger_queries import lock_versions, open_changed
from catalog.product_rows import (
    IMAGES,
    Wanted,
    check_attributes,
    check_new_product_id,
    check_product_id,
    check_texts,
    delete_products,
    is_product_id,
    lock_products,
    merged,
    next_revision,
    read_products,
    revision_floor,
    succeed,
    write_products,
)
from catalog.tables import ImageRow, ProductRow
from core.errors import NotFound, VitrineError
from core.ports import Blobs
from core.types import Attributes, IndexWork, NewImage, Product, ProductImage

_FILES_AT_ONCE = 16
"""Files that one write stores or looks for at once: an object store takes as long for one as for many."""
_IMAGE_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class PutProduct:
    """Create or replace a product; `images=None` keeps its images, an empty sequence removes them all.

    A repeated file counts once, at its first place. An identical put changes nothing, neither a revision nor
    `updated_at`.
    """

    product_id: str
    title: str
    description: str
    attributes: Attributes
    images: Sequence[NewImage] | None


@dataclass(frozen=True, slots=True)
class PatchProduct:
    """Change a product by a JSON merge patch (RFC 7396) over `title`, `description` and `attributes`."""

    product_id: str
    changes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DeleteProduct:
    """Delete a product and its images."""

    product_id: str


Operation = PutProduct | PatchProduct | DeleteProduct


@dataclass(frozen=True, slots=True)
class StoredProduct:
    """Outcome of an operation: the product, None after a delete, and whether it is new.

    `work` is what the write leaves to be indexed and removed. Of several operations on one product, the last has
    all of it.
    """

    product: Product | None
    created: bool
    work: IndexWork


Outcome = StoredProduct | VitrineError
S = TypeVar("S")
T = TypeVar("T")


class SqlProducts(SqlPart):
    """The catalog's products; every method may raise Unavailable. Safe to call from several processes."""

    def __init__(self, engine: Engine, blobs: Blobs, clock: Callable[[], datetime] = utc_now) -> None:
        super().__init__(engine, clock)
        self._blobs = blobs

    def write(
        self, operations: Sequence[Operation], check: Callable[[Attributes], None] = lambda _: None
    ) -> list[Outcome]:
        """Do these operations durably in one transaction; each succeeds or fails alone, in the given order.

        Returns an outcome for each: InvalidInput where an id, a text or an attribute cannot be stored, NotFound
        where there is no product to patch or delete. `check` raises a VitrineError for attributes that a product
        must not have. The image files are durable before the transaction begins; it checks them again, since a
        removal may have deleted them meanwhile (`catalog.image_files`).
        """
        refused = [_refusal(each, check) for each in operations]
        sound = [each for each, error in zip(operations, refused, strict=True) if error is None]
        outcomes = iter(self._write(sound, check) if sound else ())
        return [next(outcomes) if error is None else error for error in refused]

    def _write(self, operations: Sequence[Operation], check: Callable[[Attributes], None]) -> list[Outcome]:
        images = [image for each in operations for image in _images(each)]
        sha256s = _side_by_side(self._blobs.put, [each.data for each in images])
        stored = zip(sha256s, images, strict=True)
        files = [[next(stored) for _ in _images(each)] for each in operations]
        contents = dict(pair for some in files for pair in some)
        ids = sorted({each.product_id for each in operations})
        with writing(self._engine, bounded=True) as connection:
            lock_versions(connection, shared=True)
            lock_products(connection, ids)
            before = read_products(connection, ids)
            floor = 0 if len(before) == len(ids) else revision_floor(connection)
            changes = _Changes(before, floor, self._clock(), check)
            outcomes = [changes.apply(*each) for each in zip(operations, files, strict=True)]
            changed = {
                each: product for each, product in changes.after.items() if product is not before.get(each)
            }
            self._change_files(connection, before, changed, contents, changes.now)
            write_products(connection, before, [each for each in changed.values() if each is not None])
            works = open_changed(connection, before, changes.after, changes.now)
            delete_products(connection, [before[each] for each, left in changed.items() if left is None])
        # From the last operation to the first, so that the last of each product gets its work.
        done: list[Outcome] = []
        for outcome, operation in zip(reversed(outcomes), reversed(operations), strict=True):
            if isinstance(outcome, VitrineError):
                done.append(outcome)
            else:
                work = works.pop(operation.product_id, IndexWork(changes.now))
                done.append(StoredProduct(*outcome, work))
        return done[::-1]

    def _change_files(
        self,
        connection: Connection,
        before: Mapping[str, Product],
        changed: Mapping[str, Product | None],
        files: Mapping[str, NewImage],
        now: datetime,
    ) -> None:
        """Ensure that newly named files exist, and mark those that are no longer named."""
        old = {image.image_id: image.sha256 for each in changed for image in _images_of(before.get(each))}
        kept = {image.image_id: image.sha256 for each in changed.values() for image in _images_of(each)}
        dropped = [each for each in old.items() if each[0] not in kept]
        new = {sha256 for image_id, sha256 in kept.items() if image_id not in old}
        lock_files(connection, new.union(sha256 for _, sha256 in dropped), shared=True)

        def have(sha256: str) -> None:
            """Store a file again that was removed meanwhile; under its lock it stays."""
            if self._blobs.size(sha256) is None:
                self._blobs.put(files[sha256].data)

        # Files that images name cannot have been removed.
        _side_by_side(have, sorted(new - named_files(connection, new)))
        drop_images(connection, dropped, now)

    def put(
        self,
        product_id: str,
        title: str,
        description: str,
        attributes: Attributes,
        images: Sequence[NewImage] | None,
    ) -> tuple[Product, bool]:
        """Do a `PutProduct`; returns the product and whether it is new.

        Raises:
            InvalidInput: the id, a text or an attribute cannot be stored; the message says which and why.
        """
        stored = self._do(PutProduct(product_id, title, description, attributes, images))
        assert stored.product is not None
        return stored.product, stored.created

    def delete(self, product_id: str) -> None:
        """Do a `DeleteProduct`: the product's ledger rows become obsolete, its files unnamed.

        Raises:
            NotFound: there is none of that id.
        """
        self._do(DeleteProduct(product_id))

    def _do(self, operation: Operation) -> StoredProduct:
        (outcome,) = self.write([operation])
        if isinstance(outcome, VitrineError):
            raise outcome
        return outcome

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


class _Changes:
    """Operations on products in memory: `after` has each product as they leave it, None where it is deleted."""

    def __init__(
        self, before: Mapping[str, Product], floor: int, now: datetime, check: Callable[[Attributes], None]
    ) -> None:
        """`floor` is the highest revision of any deleted product."""
        self.after: dict[str, Product | None] = dict(before)
        self.now = now
        self._highest = {each: product.revision for each, product in before.items()}
        self._floor = floor
        self._check = check

    def apply(
        self, operation: Operation, files: Sequence[tuple[str, NewImage]]
    ) -> tuple[Product | None, bool] | VitrineError:
        """Apply one operation; returns the product, and whether it is new."""
        product_id = operation.product_id
        previous = self.after.get(product_id)
        if previous is None and not isinstance(operation, PutProduct):
            return _no_product(product_id)
        if isinstance(operation, DeleteProduct):
            self.after[product_id] = None
            return None, False
        try:
            wanted = self._wanted(operation, previous, files)
        except VitrineError as error:
            return error
        last = self._highest.get(product_id, self._floor)
        product = succeed(previous, wanted, next_revision(last, self.now), self.now)
        self.after[product_id] = product
        self._highest[product_id] = product.revision
        return product, previous is None

    def _wanted(
        self,
        operation: PutProduct | PatchProduct,
        previous: Product | None,
        files: Sequence[tuple[str, NewImage]],
    ) -> Wanted:
        if isinstance(operation, PatchProduct):
            assert previous is not None
            wanted = merged(previous, operation.changes)
            _check_contents(wanted.title, wanted.description, wanted.attributes, self._check)
        else:
            images = None if operation.images is None else files
            wanted = Wanted(
                operation.product_id, operation.title, operation.description, operation.attributes, images
            )
        return replace(wanted, attributes=json.loads(json.dumps(dict(wanted.attributes))))


def _refusal(operation: Operation, check: Callable[[Attributes], None]) -> VitrineError | None:
    """Return why an operation cannot succeed, as far as that is known without the catalog."""
    if not isinstance(operation, PutProduct):
        return None if is_product_id(operation.product_id) else _no_product(operation.product_id)
    try:
        check_new_product_id(operation.product_id)
        _check_contents(operation.title, operation.description, operation.attributes, check)
    except VitrineError as error:
        return error
    return None


def _check_contents(
    title: str, description: str, attributes: Attributes, check: Callable[[Attributes], None]
) -> None:
    check_texts(title, description)
    check_attributes(attributes)
    try:
        check(attributes)
    except VitrineError as error:
        raise error.at("attributes") from None


def _side_by_side(function: Callable[[S], T], values: Sequence[S]) -> list[T]:
    if len(values) <= 1:
        return [function(each) for each in values]
    with ThreadPoolExecutor(min(len(values), _FILES_AT_ONCE), "files") as pool:
        return list(pool.map(function, values))


def _images(operation: Operation) -> Sequence[NewImage]:
    return (operation.images or ()) if isinstance(operation, PutProduct) else ()


def _images_of(product: Product | None) -> Sequence[ProductImage]:
    return product.images if product else ()


def _no_product(product_id: str) -> NotFound:
    return NotFound(f"there is no product {product_id!r:.220}")
