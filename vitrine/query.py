"""Queries: texts, images and stored products, each part with a weight.

A negative weight pushes results away from what the part shows.
"""

import base64
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

Picture = str | bytes | PathLike[str]
"""The bytes of a picture file, its path, or its http(s) URL, which the service then fetches."""


def is_url(picture: Picture) -> bool:
    """Tell whether a picture stands behind a URL."""
    return isinstance(picture, str) and picture.lower().startswith(("http://", "https://"))


def encoded(picture: Picture) -> str:
    """Write a picture as requests hold it: a URL as it is, anything else as base64.

    Raises:
        OSError: there is no such file, or it cannot be read.
    """
    if is_url(picture):
        return str(picture)
    data = picture if isinstance(picture, bytes) else Path(picture).read_bytes()
    return base64.b64encode(data).decode("ascii")


@dataclass(frozen=True, slots=True)
class Box:
    """A part of a picture in shares of its width and height, as a viewer shows it, from the top left."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Words:
    """Words."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Look:
    """A picture, or the part of it that is meant."""

    picture: Picture
    weight: float = 1.0
    box: Box | None = None


@dataclass(frozen=True, slots=True)
class Like:
    """A product of the catalogue, by all its pictures."""

    product_id: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class LikeImage:
    """One picture of a product of the catalogue."""

    image_id: str
    weight: float = 1.0


Part = Words | Look | Like | LikeImage
Query = str | bytes | PathLike[str] | Part | Sequence[Part]
"""A text is words; bytes and paths are a picture; several things, or weights, take parts."""


def written(query: Query) -> str | list[dict[str, Any]]:
    """Write a query as requests hold it.

    Raises:
        OSError: a picture's file cannot be read.
        TypeError: a part is none.
    """
    if isinstance(query, str):
        return query
    if isinstance(query, bytes | PathLike):
        return [_part(Look(query))]
    if isinstance(query, Words | Look | Like | LikeImage):
        return [_part(query)]
    return [_part(part) for part in query]


def _part(part: Part) -> dict[str, Any]:
    if isinstance(part, Words):
        return {"type": "text", "text": part.text, "weight": part.weight}
    if isinstance(part, Like):
        return {"type": "product_id", "product_id": part.product_id, "weight": part.weight}
    if isinstance(part, LikeImage):
        return {"type": "image_id", "image_id": part.image_id, "weight": part.weight}
    if not isinstance(part, Look):
        raise TypeError(f"a part is one of Words, Look, Like and LikeImage, not {type(part).__name__}")
    kind = "image_url" if is_url(part.picture) else "image"
    cut = {} if part.box is None else {"box": asdict(part.box)}
    return {"type": kind, kind: encoded(part.picture), "weight": part.weight, **cut}
