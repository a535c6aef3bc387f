"""What models have written about pictures."""

from datetime import datetime

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from catalog.columns import UtcDateTime
from catalog.tables.base import IMAGE_ID, Base


class CaptionRow(Base):
    """What a model has written about a picture, or why it could not; `fingerprint` is the last to try.

    There is no foreign key to images: a put replaces a product's image rows, which must not cost captions.
    """

    __tablename__ = "captions"

    image_id: Mapped[str] = mapped_column(IMAGE_ID, primary_key=True)
    model: Mapped[str] = mapped_column(String(48), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(12))
    caption: Mapped[str | None] = mapped_column(Text)
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
