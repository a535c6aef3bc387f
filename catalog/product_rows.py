"""Rows of products: limits of a product, changes by a put, reads and writes."""

import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from operator import attrgetter
from typing import Any

from sqlalchemy import (
    JSON,
    BindParameter,
    Connection,
    Select,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)

from catalog.database import batched_rows, upsert
from catalog.keyword_search import write_documents
from catalog.tables import CaptionRow, ImageRow, ProductRow, RevisionFloor
from core.errors import InvalidInput
from core.filters import MAX_WHOLE
from core.types import Attributes, NewImage, Product, ProductImage

MAX_ID_CHARS = 200
MAX_TITLE_CHARS = 500
MAX_DESCRIPTION_CHARS = 20_000
MAX_KEY_CHARS = 100
MAX_ATTRIBUTES_BYTES = 32 * 1024
# All control characters and surrogates of Unicode, its categories Cc and Cs.
_PRODUCT_ID = re.compile(rf"[^/\x00-\x1f\x7f-\x9f\ud800-\udfff]{{1,{MAX_ID_CHARS}}}")
_NOT_UTF8 = "\N{REPLACEMENT CHARACTER}"
"""Servers decode bytes that are not UTF-8 to this, so that different ids would become one."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
IMAGES = select(*ImageRow.__table__.columns)
"""Columns in the order of `ProductImage`'s fields; all have JSON types."""
_POSITION = attrgetter("position")
_WRITTEN = ("title", "description", "attributes", "revision", "created_at", "updated_at")
_NEWEST_CAPTION = (
    select(CaptionRow.caption)
    .where(CaptionRow.image_id == ImageRow.id, CaptionRow.caption.is_not(None))
    .order_by(CaptionRow.created_at.desc(), CaptionRow.model)
    .limit(1)
    .scalar_subquery()
)
_SOME: BindParameter[Sequence[str]] = bindparam("product_ids", expanding=True)


def is_product_id(value: str) -> bool:
    """Return whether a product can have this id; any other id is never found."""
    return value not in (".", "..") and _PRODUCT_ID.fullmatch(value) is not None


def check_product_id(value: str, param: str = "product_id") -> None:
    """Refuse an id that cannot stand in a path of the API.

    Raises:
        InvalidInput: it is empty, too long, `.` or `..`, or holds "/", a control character or a surrogate.
    """
    if not is_product_id(value):
        raise InvalidInput(
            f'a product id has 1 to {MAX_ID_CHARS} characters in UTF-8, none of them "/" or a control character, '
            'and is not "." or ".."'
        ).at(param)


def check_new_product_id(value: str) -> None:
    """Refuse an id for a new product.

    Raises:
        InvalidInput: as `check_product_id`, or it holds the replacement character.
    """
    check_product_id(value)
    if _NOT_UTF8 in value:
        refused = InvalidInput("a product id holds no U+FFFD, which stands for bytes that are not UTF-8")
        raise refused.at("product_id")


def check_texts(title: str, description: str) -> None:
    """Refuse texts that are too long or that a database cannot store.

    Raises:
        InvalidInput: the title or the description is such a text.
    """
    for name, text, most in (
        ("title", title, MAX_TITLE_CHARS),
        ("description", description, MAX_DESCRIPTION_CHARS),
    ):
        if len(text) > most:
            raise InvalidInput(f"the {name} has {len(text)} characters; at most {most} are kept").at(name)
        if not _is_storable(text):
            raise InvalidInput(f"the {name} holds a NUL or half a surrogate pair").at(name)


def check_attributes(attributes: Attributes) -> None:
    """Refuse attributes that searches cannot filter by.

    Raises:
        InvalidInput: a key is empty, too long or unprintable; a value is neither a scalar nor a list of
            scalars; a number is not finite or a whole one beyond 2^53; all together are too large.
    """
    sizes: dict[str, int] = {}
    for key, value in attributes.items():
        if not isinstance(key, str) or not 1 <= len(key) <= MAX_KEY_CHARS or not _is_printable(key):
            raise InvalidInput(
                f"attribute name {key!r:.120} must have 1 to {MAX_KEY_CHARS} characters and no control characters"
            ).at("attributes")
        for item in value if isinstance(value, list | tuple) else [value]:
            _check_scalar(key, item)
        sizes[key] = len(json.dumps({key: value}, ensure_ascii=False, separators=(",", ":")).encode())
    if sum(sizes.values()) > MAX_ATTRIBUTES_BYTES:
        largest = max(sizes, key=sizes.__getitem__)
        raise InvalidInput(
            f"the attributes are larger than {MAX_ATTRIBUTES_BYTES} bytes of JSON; "
            f"the largest is {largest!r} with {sizes[largest]}"
        ).at(f"attributes.{largest}")


def _check_scalar(key: str, value: Any) -> None:
    match value:
        case bool():
            return
        case str() if not _is_storable(value):
            problem = "holds a NUL or half a surrogate pair"
        case int() if abs(value) > MAX_WHOLE:
            problem = "is beyond 2^53, where filters cannot tell whole numbers apart; send it as a text"
        case float() if not math.isfinite(value):
            problem = "is not a finite number"
        case str() | int() | float():
            return
        case _:
            problem = "must be a string, a number, a boolean or a list of these"
    raise InvalidInput(f"attribute {key!r} {problem}").at(f"attributes.{key}")


def _is_storable(text: str) -> bool:
    # PostgreSQL refuses NUL in text, and neither database can encode a lone surrogate.
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _is_printable(text: str) -> bool:
    return not any(unicodedata.category(character) in ("Cc", "Cs") for character in text)


def merged(previous: Product, changes: Mapping[str, Any]) -> "Wanted":
    """Apply a JSON merge patch (RFC 7396) over title, description and attributes; the images stay.

    A null removes an attribute, and empties a text or all attributes.

    Raises:
        InvalidInput: it names something else, a text is no string or the attributes are no object.
    """
    texts = {"title": previous.title, "description": previous.description}
    attributes = dict(previous.attributes)
    for name, value in changes.items():
        if name in texts:
            if not isinstance(value, str | None):
                raise InvalidInput(f"the {name} must be a string or null").at(name)
            texts[name] = value or ""
        elif name != "attributes":
            raise InvalidInput(f"{name!r:.120} cannot be patched; title, description and attributes can").at(
                name
            )
        elif value is None:
            attributes = {}
        elif isinstance(value, Mapping):
            attributes |= value
            attributes = {key: each for key, each in attributes.items() if each is not None}
        else:
            raise InvalidInput("the attributes must be an object or null").at(name)
    return Wanted(previous.product_id, texts["title"], texts["description"], attributes, None)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A product as a caller puts it; `images=None` keeps its images."""

    product_id: str
    title: str
    description: str
    attributes: Attributes
    images: Sequence[tuple[str, NewImage]] | None
    """Images, each with the sha256 of its file."""


def image_id(product_id: str, sha256: str) -> str:
    """Derive an image's id, 32 lower-case hex digits, from its product and file."""
    return hashlib.sha256(f"{product_id}\0{sha256}".encode()).hexdigest()[:32]


def next_revision(previous: int, now: datetime) -> int:
    """Return a revision above `previous`, near the microseconds since 1970; a clock set back does not lower it."""
    return max(previous + 1, (now - _EPOCH) // timedelta(microseconds=1))


def seconds_since(revision: int, now: datetime) -> float:
    """Estimate the age of a revision in seconds by its number; never below 0."""
    return max(0.0, (now - _EPOCH) / timedelta(seconds=1) - revision / 1e6)


def is_same(
    product: Product, title: str, description: str, attributes: Attributes, sha256s: Sequence[str] | None
) -> bool:
    """Return whether a put of these values changes nothing; `sha256s=None` keeps the images."""
    return (
        (title, description) == (product.title, product.description)
        and _canonical(attributes) == _canonical(product.attributes)
        and (sha256s is None or list(dict.fromkeys(sha256s)) == [image.sha256 for image in product.images])
    )


def succeed(previous: Product | None, wanted: Wanted, revision: int, now: datetime) -> Product:
    """Return the product after the put; `previous` itself when nothing changes.

    An image keeps its revision while its place and the attributes stay. Otherwise it gets `revision`.
    """
    before = () if previous is None else previous.images
    same_attributes = previous is not None and _canonical(previous.attributes) == _canonical(
        wanted.attributes
    )
    if wanted.images is not None:
        images = _images(wanted.product_id, wanted.images, before, same_attributes, revision)
    elif same_attributes:
        images = before
    else:
        images = tuple(replace(image, revision=revision) for image in before)
    texts = wanted.title, wanted.description
    kept = (same_attributes, images, *texts)
    if previous is not None and kept == (True, before, previous.title, previous.description):
        return previous
    created_at = now if previous is None else previous.created_at
    return Product(wanted.product_id, *texts, wanted.attributes, images, revision, created_at, now)


def _images(
    product_id: str,
    wanted: Sequence[tuple[str, NewImage]],
    before: Sequence[ProductImage],
    same_attributes: bool,
    revision: int,
) -> tuple[ProductImage, ...]:
    revisions = {(each.image_id, each.position): each.revision for each in before if same_attributes}
    captions = {each.image_id: each.caption for each in before}
    # A repeated file counts once, at its first place.
    distinct = dict(reversed(wanted))
    return tuple(
        ProductImage(
            image_id=(key := image_id(product_id, sha256)),
            product_id=product_id,
            position=position,
            sha256=sha256,
            media_type=distinct[sha256].media_type,
            width=distinct[sha256].width,
            height=distinct[sha256].height,
            bytes=len(distinct[sha256].data),
            revision=revisions.get((key, position), revision),
            caption=captions.get(key),
        )
        for position, sha256 in enumerate(dict.fromkeys(sha256 for sha256, _ in wanted))
    )


def _canonical(attributes: Attributes) -> str:
    # 1, 1.0 and true are three values in JSON; in Python they are equal.
    return json.dumps(attributes, sort_keys=True)


@cache
def _some_with_images(dialect: str) -> Select[*tuple[Any, ...]]:
    """Build the query for products by id, with their images in one column.

    Cached: every search reads products, and building the statement takes as long as running it.
    """
    columns = (*IMAGES.selected_columns, _NEWEST_CAPTION)
    # One JSON array of arrays, in any order; without rows it is empty or NULL.
    images = select(
        func.json_agg(func.json_build_array(*columns), type_=JSON)
        if dialect == "postgresql"
        else func.json_group_array(func.json_array(*columns), type_=JSON)
    )
    of_product = images.where(ImageRow.product_id == ProductRow.id).scalar_subquery().label("images")
    product = list(ProductRow.__table__.columns)
    # In the order of `Product`'s fields.
    return select(*product[:4], of_product, *product[4:]).where(ProductRow.id.in_(_SOME))


def lock_products(connection: Connection, product_ids: Iterable[str]) -> None:
    """Serialize the writers of these products, even before they exist, until the transaction ends."""
    lock_by_ids(connection, product_ids, "pg_advisory_xact_lock", 0)


def lock_by_ids(connection: Connection, product_ids: Iterable[str], function: str, seed: int) -> None:
    """Take an advisory lock for each of these products; `seed` tells locks for other purposes apart."""
    # On SQLite the transaction holds the database's one write lock.
    if connection.dialect.name == "postgresql":
        # In one order, so that no deadlock is possible.
        connection.exec_driver_sql(
            f"SELECT {function}(hashtextextended(id, {seed})) FROM unnest(%s::text[]) AS id",
            (sorted(set(product_ids)),),
        )


def read_products(connection: Connection, product_ids: Sequence[str]) -> dict[str, Product]:
    """Read those of the products that exist, in any order."""
    products: dict[str, Product] = {}
    statement = _some_with_images(connection.dialect.name)
    for some in batched_rows(product_ids):
        rows = connection.execute(statement, {"product_ids": some})
        for product_id, title, description, attributes, images, *written in rows:
            in_order = sorted((ProductImage(*values) for values in images or ()), key=_POSITION)
            products[product_id] = Product(
                product_id, title, description, attributes, tuple(in_order), *written
            )
    return products


def write_products(
    connection: Connection, before: Mapping[str, Product], products: Sequence[Product]
) -> None:
    """Store these products in place of those before, with their search documents."""
    rows = [{"id": each.product_id} | {name: getattr(each, name) for name in _WRITTEN} for each in products]
    upsert(connection, ProductRow, rows, _WRITTEN)
    moved = [
        each
        for each in products
        if each.images != (before[each.product_id].images if each.product_id in before else ())
    ]
    for some in batched_rows([each.product_id for each in moved if each.product_id in before]):
        connection.execute(delete(ImageRow).where(ImageRow.product_id.in_(some)))
    if images := [_image_values(image) for each in moved for image in each.images]:
        connection.execute(insert(ImageRow), images)
    write_documents(connection, [each.product_id for each in products])


def delete_products(connection: Connection, products: Sequence[Product]) -> None:
    """Delete these products, with their images and documents; new products get higher revisions."""
    if not products:
        return
    # All products share this row. It is locked last, so that its holder never waits for a file or a ledger row. A
    # write of a product reads it only under the product's lock.
    highest = max(each.revision for each in products)
    connection.execute(update(RevisionFloor).where(RevisionFloor.revision < highest).values(revision=highest))
    for some in batched_rows([each.product_id for each in products]):
        connection.execute(delete(ProductRow).where(ProductRow.id.in_(some)))


def revision_floor(connection: Connection) -> int:
    """Read the highest revision of any deleted product."""
    return connection.scalars(select(RevisionFloor.revision)).one()


def _image_values(image: ProductImage) -> dict[str, Any]:
    values = asdict(image)
    values["id"] = values.pop("image_id")
    del values["caption"]
    return values
