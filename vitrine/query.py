"""Queries: texts, images and stored products, each part with a weight.

A negative weight pushes results away from what the part shows.
"""

import base64
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

ImageInput = str | bytes | PathLike[str]
"""The bytes of an image file, its path, or its http(s) URL, which the service then fetches."""


def is_url(image: ImageInput) -> bool:
    """Tell whether an image stands behind a URL."""
    return isinstance(image, str) and image.lower().startswith(("http://", "https://"))


def encoded(image: ImageInput) -> str:
    """Write an image as requests hold it: a URL as it is, anything else as base64.

    Raises:
        OSError: there is no such file, or it cannot be read.
    """
    if is_url(image):
        return str(image)
    data = image if isinstance(image, bytes) else Path(image).read_bytes()
    return base64.b64encode(data).decode("ascii")


@dataclass(frozen=True, slots=True)
class Box:
    """A part of an image in shares of its width and height, as a viewer shows it, from the top left."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class TextPart:
    """Words."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class ImagePart:
    """An image, or the part of it that is meant."""

    image: ImageInput
    weight: float = 1.0
    box: Box | None = None


@dataclass(frozen=True, slots=True)
class ProductPart:
    """A product of the catalog, by all its images."""

    product_id: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class ProductImagePart:
    """One image of a product of the catalog."""

    image_id: str
    weight: float = 1.0


Part = TextPart | ImagePart | ProductPart | ProductImagePart
Query = str | bytes | PathLike[str] | Part | Sequence[Part]
"""A text is words; bytes and paths are an image; several things, or weights, take parts."""


def written(query: Query) -> str | list[dict[str, Any]]:
    """Write a query as requests hold it.

    Raises:
        OSError: an image's file cannot be read.
        TypeError: a part is none.
    """
    if isinstance(query, str):
        return query
    if isinstance(query, bytes | PathLike):
        return [_part(ImagePart(query))]
    if isinstance(query, TextPart | ImagePart | ProductPart | ProductImagePart):
        return [_part(query)]
    return [_part(part) for part in query]


def _part(part: Part) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text, "weight": part.weight}
    if isinstance(part, ProductPart):
        return {"type": "product_id", "product_id": part.product_id, "weight": part.weight}
    if isinstance(part, ProductImagePart):
        return {"type": "image_id", "image_id": part.image_id, "weight": part.weight}
    if not isinstance(part, ImagePart):
        raise TypeError(
            f"a part is one of TextPart, ImagePart, ProductPart and ProductImagePart, not {type(part).__name__}"
        )
    kind = "image_url" if is_url(part.image) else "image"
    cut = {} if part.box is None else {"box": asdict(part.box)}
    return {"type": kind, kind: encoded(part.image), "weight": part.weight, **cut}
