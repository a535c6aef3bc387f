"""Imports: how far they are, and what they delivered."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from catalog.columns import UtcDateTime
from catalog.tables.base import PRODUCT_ID, SHA256, Base

_SOURCE = String(64)


class ImportRow(Base):
    """The last import from a source: unfinished while `finished_at` is NULL.

    `source` stands for the place that products come from, `plan` for how they are read from it and which
    state of it that is: a position counts only within one plan.
    """

    __tablename__ = "imports"

    source: Mapped[str] = mapped_column(_SOURCE, primary_key=True)
    plan: Mapped[str] = mapped_column(String(64))
    generation: Mapped[int]
    position: Mapped[str | None] = mapped_column(Text)
    counts: Mapped[dict[str, Any]] = mapped_column(JSON)
    job_id: Mapped[str] = mapped_column(String(64))
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    __table_args__ = (Index(None, "job_id"),)


class ImportedProductRow(Base):
    """A product that a source has delivered; `generation` and `row_number` say when and where last."""

    __tablename__ = "imported_products"

    source: Mapped[str] = mapped_column(_SOURCE, primary_key=True)
    product_id: Mapped[str] = mapped_column(PRODUCT_ID, primary_key=True)
    generation: Mapped[int]
    row_number: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (Index(None, "source", "generation", "product_id"),)


class ImportErrorRow(Base):
    """What was wrong with a row of a source's last import."""

    __tablename__ = "import_errors"

    source: Mapped[str] = mapped_column(_SOURCE, primary_key=True)
    row_number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    product_id: Mapped[str | None] = mapped_column(Text)
    error: Mapped[str] = mapped_column(Text)


class ImportedPictureRow(Base):
    """What a path or URL held when it was read last, and how its keeper calls that state of it.

    The key is a hash, for a URL may be longer than an index takes.
    """

    __tablename__ = "imported_pictures"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    etag: Mapped[str | None] = mapped_column(Text)
    last_modified: Mapped[str | None] = mapped_column(Text)
    sha256: Mapped[str] = mapped_column(SHA256)
    media_type: Mapped[str] = mapped_column(Text)
    width: Mapped[int]
    height: Mapped[int]

    __table_args__ = (Index(None, "sha256"),)
