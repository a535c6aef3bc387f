"""Queries as callers write them: texts, images and stored products, each part with a weight.

A negative weight pushes results away from the part.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from errno import ENOENT
from os import PathLike
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from vitrine.schemas.search import Fusion

ImageInput = str | bytes | PathLike[str]
"""The bytes of an image file, its path, or its http(s) URL, which the service then fetches."""


def is_url(image: ImageInput) -> bool:
    """Return True where the image is a URL."""
    return isinstance(image, str) and image.lower().startswith(("http://", "https://"))


def encode_image(image: ImageInput) -> str:
    """Encode an image for a request: a URL as it is, anything else as base64.

    Raises:
        OSError: there is no such file, or it cannot be read; or it is a URL of another scheme than http and https.
    """
    if is_url(image):
        return str(image)
    if isinstance(image, str) and "://" in image:
        raise FileNotFoundError(ENOENT, "neither a file nor an http or https URL", image[:80])
    data = image if isinstance(image, bytes) else Path(image).read_bytes()
    return base64.b64encode(data).decode("ascii")


def encode_images(images: Sequence[ImageInput]) -> list[str]:
    """Encode images for a request, in order; same errors as `encode_image`."""
    return [encode_image(image) for image in images]


def image_field(image: ImageInput | None) -> dict[str, str]:
    """Encode the one image of a request under the name of its field; no image makes no field."""
    if image is None:
        return {}
    return {"image_url" if is_url(image) else "image": encode_image(image)}


@dataclass(frozen=True, slots=True)
class Box:
    """A part of an image in shares of its width and height, as a viewer shows it, from the top left."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class TextPart:
    """A text."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class ImagePart:
    """An image, or the part of it in `box`."""

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
"""A string is a text. Bytes and paths are an image. Several things, or weights, take parts."""


class Rerank(TypedDict):
    """A second stage: a model with a matching head, and how many products it orders, by default 50."""

    model: str
    depth: NotRequired[int]


class PageOptions(TypedDict, total=False):
    """Page of results, and what is near enough for it."""

    limit: int | None
    offset: int | None
    score_threshold: float | None
    max_false_match_rate: float | None


class SimilarOptions(PageOptions, total=False):
    """Options of `similar`."""

    model: str | None


class QueryOptions(PageOptions, total=False):
    """Options that `search` and `compare` share."""

    filter: Mapping[str, Any] | None
    weights: Mapping[str, float] | None
    fusion: Fusion | None
    keyword_weight: float | None
    rerank: Rerank | None
    exclude: Sequence[str] | None
    include_query_products: bool | None


class SearchOptions(QueryOptions, total=False):
    """Options of `search`; `model` is an encoder's name, by default the ensemble."""

    model: str | None


class CompareOptions(QueryOptions, total=False):
    """Options of `compare`; `models` are by default every encoder and the ensemble."""

    models: Sequence[str] | None


def encode_query(query: Query) -> str | list[dict[str, Any]]:
    """Encode a query as `vitrine.schemas.search.Query` describes it.

    Raises:
        OSError: an image's file cannot be read.
        TypeError: a part is none.
    """
    if isinstance(query, str):
        return query
    if isinstance(query, bytes | PathLike):
        return [_encode_part(ImagePart(query))]
    if isinstance(query, Part):
        return [_encode_part(query)]
    return [_encode_part(part) for part in query]


_TYPES = {TextPart: "text", ProductPart: "product_id", ProductImagePart: "image_id"}


def _encode_part(part: Part) -> dict[str, Any]:
    if isinstance(part, ImagePart):
        kind = "image_url" if is_url(part.image) else "image"
        box = {} if part.box is None else {"box": asdict(part.box)}
        return {"type": kind, kind: encode_image(part.image), "weight": part.weight, **box}
    if type(part) not in _TYPES:
        raise TypeError(
            f"a part is one of TextPart, ImagePart, ProductPart and ProductImagePart, not {type(part).__name__}"
        )
    return {"type": _TYPES[type(part)], **asdict(part)}
