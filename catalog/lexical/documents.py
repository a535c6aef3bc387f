"""What each product is found by, written in the transaction that changes it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, select

from catalog.chunks import chunks
from catalog.dialects import insert_or_replace
from catalog.lexical.words import document_words
from catalog.tables import CaptionRow, DocumentRow, ImageRow, ProductRow
from core.types import Attributes

FIELDS = ("identifier", "title", "attributes", "description", "captions")
"""The columns that are searched."""
_MAX_FIELD_CHARS = 50_000
"""Keeps all fields below the mebibyte that PostgreSQL can search, also when no word comes twice."""
_PAGE = 500


def write_documents(connection: Connection, product_ids: Sequence[str]) -> None:
    """Bring the documents of these products to what the transaction sees; deleted ones go by themselves.

    The caller holds the locks of the products, or of the whole database.
    """
    for some in chunks(product_ids):
        captions = _captions(connection, some)
        products = select(
            ProductRow.id, ProductRow.title, ProductRow.description, ProductRow.attributes
        ).where(ProductRow.id.in_(some))
        rows = [
            {"product_id": row.id}
            | _fields(row.id, row.title, row.attributes, row.description, captions.get(row.id, []))
            for row in connection.execute(products)
        ]
        if rows:
            _upsert(connection, rows)


def write_all_documents(connection: Connection) -> None:
    """Write the documents of all products, a page at a time."""
    ids = select(ProductRow.id).order_by(ProductRow.id).limit(_PAGE)
    page = list(connection.scalars(ids))
    while page:
        write_documents(connection, page)
        page = list(connection.scalars(ids.where(ProductRow.id > page[-1])))


def _fields(
    product_id: str, title: str, attributes: Attributes, description: str, captions: Sequence[str]
) -> dict[str, str]:
    texts = (product_id, title, "\n".join(_strings(attributes)), description, "\n".join(captions))
    return {
        field: " ".join(document_words(text))[:_MAX_FIELD_CHARS]
        for field, text in zip(FIELDS, texts, strict=True)
    }


def _strings(attributes: Attributes) -> list[str]:
    """The values that are words; numbers and names of attributes would match by accident."""
    found: list[str] = []
    for value in attributes.values():
        found += [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, str)]
    return found


def _captions(connection: Connection, product_ids: Sequence[str]) -> Mapping[str, list[str]]:
    captions: dict[str, list[str]] = defaultdict(list)
    rows = (
        select(ImageRow.product_id, CaptionRow.caption)
        .join(CaptionRow, CaptionRow.image_id == ImageRow.id)
        .where(ImageRow.product_id.in_(product_ids), CaptionRow.caption.is_not(None))
        .order_by(ImageRow.product_id, ImageRow.position, CaptionRow.model)
    )
    for row in connection.execute(rows):
        captions[row.product_id].append(row.caption)
    return captions


def _upsert(connection: Connection, rows: list[dict[str, Any]]) -> None:
    statement = insert_or_replace(connection, DocumentRow.metadata.tables[DocumentRow.__tablename__])
    changes = {field: statement.excluded[field] for field in FIELDS}
    connection.execute(statement.on_conflict_do_update(index_elements=["product_id"], set_=changes), rows)
