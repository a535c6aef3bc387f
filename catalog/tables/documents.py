"""The words that products are found by."""

from sqlalchemy import BigInteger, ForeignKey, Integer, Text
from sqlalchemy.orm import Mapped, mapped_column

from catalog.tables.base import PRODUCT_ID, Base


class DocumentRow(Base):
    """The words that a product is found by, each field as words with spaces between.

    The database's full-text index hangs on this table: `catalog.lexical.engines` says how.
    """

    __tablename__ = "documents"

    # A number, for SQLite's full-text index knows its rows by numbers.
    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    product_id: Mapped[str] = mapped_column(
        PRODUCT_ID, ForeignKey("products.id", ondelete="CASCADE"), unique=True
    )
    identifier: Mapped[str] = mapped_column(Text)
    title: Mapped[str] = mapped_column(Text)
    attributes: Mapped[str] = mapped_column(Text)
    description: Mapped[str] = mapped_column(Text)
    captions: Mapped[str] = mapped_column(Text)
