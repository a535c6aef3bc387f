"""The parts of a query: words, pictures, and what the catalogue holds already, each with a weight.

A negative weight pushes results away from what the part shows.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from typing import Any

from vitrine.pictures import Picture, encoded, is_url


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
