"""The versions of models."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Text
from sqlalchemy.orm import Mapped, mapped_column

from catalog.columns import UtcDateTime
from catalog.tables.base import COLLECTION, Base


class ModelVersionRow(Base):
    """A model version that has, or had, a collection.

    `settings` are those fields of its encoder's configuration that make it this version. `promoted_at` is
    when it was last chosen to take over, `retired_at` when another last took over from it.
    """

    __tablename__ = "model_versions"

    collection: Mapped[str] = mapped_column(COLLECTION, primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    family: Mapped[str] = mapped_column(Text)
    checkpoint: Mapped[str] = mapped_column(Text)
    fingerprint: Mapped[str] = mapped_column(Text)
    dimension: Mapped[int]
    modalities: Mapped[list[str]] = mapped_column(JSON)
    precision: Mapped[str] = mapped_column(Text)
    device: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    settings: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    promoted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    retired_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
