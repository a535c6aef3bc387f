"""Products to rows and back, inside a transaction that the caller holds."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from operator import attrgetter
from typing import Any

from sqlalchemy import BindParameter, Connection, Select, bindparam, delete, func, insert, select, update

from catalog.chunks import chunks
from catalog.dialects import json_of_rows
from catalog.lexical.documents import write_documents
from catalog.tables import CaptionRow, ImageRow, ProductRow, RevisionFloor
from core.types import Picture, Product

PICTURES = select(
    ImageRow.id,
    ImageRow.product_id,
    ImageRow.position,
    ImageRow.sha256,
    ImageRow.media_type,
    ImageRow.width,
    ImageRow.height,
    ImageRow.bytes,
    ImageRow.revision,
)
"""The columns in the order of `Picture`'s fields; all of types that JSON has."""

_POSITION = attrgetter("position")
_NEWEST_CAPTION = (
    select(CaptionRow.caption)
    .where(CaptionRow.image_id == ImageRow.id, CaptionRow.caption.is_not(None))
    .order_by(CaptionRow.created_at.desc(), CaptionRow.model)
    .limit(1)
    .scalar_subquery()
)
_SOME: BindParameter[Sequence[str]] = bindparam("product_ids", expanding=True)


@cache
def _some_with_pictures(dialect: str) -> Select[*tuple[Any, ...]]:
    """Products of some ids, with their pictures in one more column.

    Made once: every search reads products, and to build a statement takes as long as to run it.
    """
    pictures = select(json_of_rows(dialect, *PICTURES.selected_columns, _NEWEST_CAPTION))
    of_product = pictures.where(ImageRow.product_id == ProductRow.id).scalar_subquery().label("pictures")
    # In the order of `Product`'s fields.
    return select(
        ProductRow.id,
        ProductRow.title,
        ProductRow.description,
        ProductRow.attributes,
        of_product,
        ProductRow.revision,
        ProductRow.created_at,
        ProductRow.updated_at,
    ).where(ProductRow.id.in_(_SOME))


def lock_product(connection: Connection, product_id: str) -> None:
    """Let writers of one product take turns, also while it does not exist, until the transaction ends."""
    # On SQLite the transaction holds the only write lock there is.
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(product_id, 0))))


def read_products(connection: Connection, product_ids: Sequence[str]) -> dict[str, Product]:
    """Read those of the products that exist, in any order."""
    products: dict[str, Product] = {}
    statement = _some_with_pictures(connection.dialect.name)
    for some in chunks(product_ids):
        rows = connection.execute(statement, {"product_ids": some})
        for product_id, title, description, attributes, pictures, *written in rows:
            in_order = sorted((Picture(*values) for values in pictures or ()), key=_POSITION)
            products[product_id] = Product(
                product_id, title, description, attributes, tuple(in_order), *written
            )
    return products


def write_product(connection: Connection, previous: Product | None, product: Product) -> None:
    """Store the product in the place of `previous`, with what it is found by."""
    values = {
        "title": product.title,
        "description": product.description,
        "attributes": product.attributes,
        "revision": product.revision,
        "created_at": product.created_at,
        "updated_at": product.updated_at,
    }
    if previous is None:
        connection.execute(insert(ProductRow).values(id=product.product_id, **values))
    else:
        connection.execute(update(ProductRow).where(ProductRow.id == product.product_id).values(**values))
    if previous is None or previous.pictures != product.pictures:
        connection.execute(delete(ImageRow).where(ImageRow.product_id == product.product_id))
        if product.pictures:
            connection.execute(insert(ImageRow), [_image_values(picture) for picture in product.pictures])
    write_documents(connection, [product.product_id])


def revision_floor(connection: Connection) -> int:
    """Read the highest revision that a deleted product had."""
    return connection.scalars(select(RevisionFloor.revision)).one()


def raise_revision_floor(connection: Connection, revision: int) -> None:
    """Keep new products above this revision."""
    connection.execute(
        update(RevisionFloor).where(RevisionFloor.revision < revision).values(revision=revision)
    )


def _image_values(picture: Picture) -> dict[str, Any]:
    values = asdict(picture)
    values["id"] = values.pop("image_id")
    del values["caption"]
    return values
