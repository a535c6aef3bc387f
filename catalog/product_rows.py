"""Products to rows and back, inside a transaction that the caller holds."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import BindParameter, Connection, and_, bindparam, delete, func, insert, select, update

from catalog.chunks import chunks
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
"""The columns in the order of `Picture`'s fields."""

# Written once: every search reads products, and to build a statement takes as long as to run it.
_SOME: BindParameter[Sequence[str]] = bindparam("product_ids", expanding=True)
_PICTURES_OF_SOME = (
    PICTURES.add_columns(CaptionRow.caption)
    .outerjoin(CaptionRow, and_(CaptionRow.image_id == ImageRow.id, CaptionRow.caption.is_not(None)))
    .where(ImageRow.product_id.in_(_SOME))
    .order_by(ImageRow.product_id, ImageRow.position, CaptionRow.created_at, CaptionRow.model.desc())
)
_SOME_PRODUCTS = select(*ProductRow.__table__.columns).where(ProductRow.id.in_(_SOME))


def lock_product(connection: Connection, product_id: str) -> None:
    """Let writers of one product take turns, also while it does not exist, until the transaction ends."""
    # On SQLite the transaction holds the only write lock there is.
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(product_id, 0))))


def read_products(connection: Connection, product_ids: Sequence[str]) -> dict[str, Product]:
    """Read those of the products that exist, in any order."""
    products: dict[str, Product] = {}
    for some in chunks(product_ids):
        pictures: dict[str, dict[str, Picture]] = defaultdict(dict)
        for row in connection.execute(_PICTURES_OF_SOME, {"product_ids": some}):
            picture = Picture(*row)
            # It comes once for each of its captions, and the newest is the last.
            pictures[picture.product_id][picture.image_id] = picture
        for row in connection.execute(_SOME_PRODUCTS, {"product_ids": some}):
            products[row.id] = Product(
                product_id=row.id,
                title=row.title,
                description=row.description,
                attributes=row.attributes,
                pictures=tuple(pictures[row.id].values()),
                revision=row.revision,
                created_at=row.created_at,
                updated_at=row.updated_at,
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
