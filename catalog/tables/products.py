"""Products, their pictures, and how high revisions have come."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from catalog.columns import UtcDateTime
from catalog.tables.base import IMAGE_ID, PRODUCT_ID, SHA256, Base


class ProductRow(Base):
    """A product; `revision` is at least that of every picture it has or ever had."""

    __tablename__ = "products"

    id: Mapped[str] = mapped_column(PRODUCT_ID, primary_key=True)
    title: Mapped[str] = mapped_column(Text)
    description: Mapped[str] = mapped_column(Text)
    # JSON and not JSONB: it gives back numbers and the order of keys as they came, on both databases alike.
    attributes: Mapped[dict[str, Any]] = mapped_column(JSON)
    revision: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ImageRow(Base):
    """A picture of a product; its file is the blob of that sha256."""

    __tablename__ = "images"

    id: Mapped[str] = mapped_column(IMAGE_ID, primary_key=True)
    product_id: Mapped[str] = mapped_column(PRODUCT_ID, ForeignKey("products.id", ondelete="CASCADE"))
    position: Mapped[int]
    sha256: Mapped[str] = mapped_column(SHA256)
    media_type: Mapped[str] = mapped_column(Text)
    width: Mapped[int]
    height: Mapped[int]
    bytes: Mapped[int] = mapped_column(BigInteger)
    revision: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (
        UniqueConstraint("product_id", "position"),
        # `missing` walks the pictures in this order and stops at its limit, instead of sorting them all.
        Index(None, "revision", "id"),
        # Tells whether anything names a file.
        Index(None, "sha256"),
    )


class UnnamedFileRow(Base):
    """An image file that perhaps no image names any more, and since when; `catalog.image_files` removes it."""

    __tablename__ = "unnamed_files"

    sha256: Mapped[str] = mapped_column(SHA256, primary_key=True)
    since: Mapped[datetime] = mapped_column(UtcDateTime)

    __table_args__ = (Index(None, "since"),)


class FileHoldRow(Base):
    """A backup or restore under way: no image file is removed before it expires."""

    __tablename__ = "file_holds"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)


class CatalogIdRow(Base):
    """One row: the id that marks the store of image files as this catalog's; a backup or a copy has the same.

    Milvus has another, in `IndexStoreRow`.
    """

    __tablename__ = "catalog_id"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    catalog_id: Mapped[str] = mapped_column(String(32))


class RevisionFloor(Base):
    """One row: no deleted product had a revision above it, so a new one that starts higher repeats none.

    Without it a product that is deleted and made again while a clock is set back could reuse a revision.
    """

    __tablename__ = "revision_floor"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    revision: Mapped[int] = mapped_column(BigInteger)
