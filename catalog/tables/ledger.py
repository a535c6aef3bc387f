"""Which picture is in which collection."""

from datetime import datetime

from sqlalchemy import BigInteger, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from catalog.columns import UtcDateTime
from catalog.tables.base import COLLECTION, IMAGE_ID, Base


class IndexStoreRow(Base):
    """The one row, at most: the id that marks the Milvus that the ledger speaks of.

    The store of image files has another, in `CatalogIdRow`.
    """

    __tablename__ = "index_store"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    store_id: Mapped[str] = mapped_column(String(32))


class EmbeddingRow(Base):
    """A line of the ledger: open while `embedded_at` and `error` are NULL, then settled or in quarantine.

    There is no foreign key to images: a row outlives its picture until the vector is deleted.
    """

    __tablename__ = "embeddings"

    image_id: Mapped[str] = mapped_column(IMAGE_ID, primary_key=True)
    image_revision: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    collection: Mapped[str] = mapped_column(COLLECTION, primary_key=True)
    begun_at: Mapped[datetime] = mapped_column(UtcDateTime)
    embedded_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    error: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        # The anti-join runs both ways. From a picture to its row (`missing`, `counts`) it is one look-up by
        # the primary key. From the rows of one collection to the pictures (`obsolete`) it needs that
        # collection's rows together, in the order that the answer has; the look-up on the other side is one
        # by the picture's revision and id.
        Index(None, "collection", "image_id", "image_revision"),
        # What is in quarantine is looked through again and again, and is little.
        Index(
            "ix_embeddings_failed",
            "collection",
            "image_id",
            "image_revision",
            sqlite_where=text("error IS NOT NULL"),
            postgresql_where=text("error IS NOT NULL"),
        ),
        # Clustered by its key on SQLite, which saves every look-up a second tree.
        {"sqlite_with_rowid": False},
    )
