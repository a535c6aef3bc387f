"""Products and their pictures."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Attributes = Mapping[str, Any]
"""What a shop knows of a product: JSON values under names of its choice."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of a product as the catalog keeps it.

    `revision` changes whenever anything that a search sees of the picture changes, and never repeats.
    `caption` is the newest that a model has written, if any; it is no part of what makes a picture the same.
    """

    image_id: str
    product_id: str
    position: int
    sha256: str
    media_type: str
    width: int
    height: int
    bytes: int
    revision: int
    caption: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Product:
    """A product with its pictures in their order."""

    product_id: str
    title: str
    description: str
    attributes: Attributes
    pictures: tuple[Picture, ...]
    revision: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class NewPicture:
    """A decodable picture file on its way into the catalog."""

    data: bytes
    media_type: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Caption:
    """What a model has written about a picture."""

    model: str
    text: str
    created_at: datetime
