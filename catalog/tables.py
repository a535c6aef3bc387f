"""The tables of the catalog."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from catalog.columns import UtcDateTime

# Compared byte by byte everywhere, so that a page of products has one order on every database and locale.
_PRODUCT_ID = String(200).with_variant(String(200, collation="C"), "postgresql")
_IMAGE_ID = String(32)
_COLLECTION = String(255)


class Base(DeclarativeBase):
    """Names every constraint, so that a later migration can drop it on any database."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class ProductRow(Base):
    """A product; `revision` is at least that of every picture it has or ever had."""

    __tablename__ = "products"

    id: Mapped[str] = mapped_column(_PRODUCT_ID, primary_key=True)
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

    id: Mapped[str] = mapped_column(_IMAGE_ID, primary_key=True)
    product_id: Mapped[str] = mapped_column(_PRODUCT_ID, ForeignKey("products.id", ondelete="CASCADE"))
    position: Mapped[int]
    sha256: Mapped[str] = mapped_column(String(64))
    media_type: Mapped[str] = mapped_column(Text)
    width: Mapped[int]
    height: Mapped[int]
    bytes: Mapped[int] = mapped_column(BigInteger)
    revision: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (
        UniqueConstraint("product_id", "position"),
        # `missing` walks the pictures in this order and stops at its limit, instead of sorting them all.
        Index(None, "revision", "id"),
    )


class EmbeddingRow(Base):
    """A line of the ledger: open while `embedded_at` and `error` are NULL, then settled or in quarantine.

    There is no foreign key to images: a row outlives its picture until the vector is deleted.
    """

    __tablename__ = "embeddings"

    image_id: Mapped[str] = mapped_column(_IMAGE_ID, primary_key=True)
    image_revision: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    collection: Mapped[str] = mapped_column(_COLLECTION, primary_key=True)
    begun_at: Mapped[datetime] = mapped_column(UtcDateTime)
    embedded_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    error: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        # The anti-join runs both ways. From a picture to its row (`missing`, `counts`) it is one look-up by
        # the primary key. From the rows of one collection to the pictures (`obsolete`) it needs that
        # collection's rows together, in the order that the answer has; the look-up on the other side is one
        # by the picture's revision and id.
        Index(None, "collection", "image_id", "image_revision"),
        # Clustered by its key on SQLite, which saves every look-up a second tree.
        {"sqlite_with_rowid": False},
    )


class ModelVersionRow(Base):
    """A model version that has, or had, a collection."""

    __tablename__ = "model_versions"

    collection: Mapped[str] = mapped_column(_COLLECTION, primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    family: Mapped[str] = mapped_column(Text)
    checkpoint: Mapped[str] = mapped_column(Text)
    fingerprint: Mapped[str] = mapped_column(Text)
    dimension: Mapped[int]
    modalities: Mapped[list[str]] = mapped_column(JSON)
    precision: Mapped[str] = mapped_column(Text)
    device: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class RevisionFloor(Base):
    """One row: no deleted product had a revision above it, so a new one that starts higher repeats none.

    Without it a product that is deleted and made again while a clock is set back could reuse a revision.
    """

    __tablename__ = "revision_floor"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    revision: Mapped[int] = mapped_column(BigInteger)
