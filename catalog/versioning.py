"""What a put makes of a product: which pictures it has afterwards and which revisions move."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from core.types import Attributes, NewPicture, Picture, Product

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A product as a caller wants it; `pictures=None` keeps those that it has."""

    product_id: str
    title: str
    description: str
    attributes: Attributes
    pictures: Sequence[tuple[str, NewPicture]] | None
    """Each with the sha256 of its file."""


def image_id(product_id: str, sha256: str) -> str:
    """Derive a picture's id, 32 lower-case hex digits: the same file in the same product has the same."""
    return hashlib.sha256(f"{product_id}\0{sha256}".encode()).hexdigest()[:32]


def next_revision(previous: int, now: datetime) -> int:
    """Continue after `previous`, near the microseconds since 1970, and never fall back with the clock."""
    return max(previous + 1, (now - _EPOCH) // timedelta(microseconds=1))


def seconds_since(revision: int, now: datetime) -> float:
    """Tell how long ago a revision was made, as near as its number tells, and never less than 0."""
    return max(0.0, (now - _EPOCH) / timedelta(seconds=1) - revision / 1e6)


def is_same(
    product: Product, title: str, description: str, attributes: Attributes, sha256s: Sequence[str] | None
) -> bool:
    """Tell whether a put of these would change nothing; `sha256s=None` keeps the pictures."""
    return (
        (title, description) == (product.title, product.description)
        and _canonical(attributes) == _canonical(product.attributes)
        and (
            sha256s is None
            or list(dict.fromkeys(sha256s)) == [picture.sha256 for picture in product.pictures]
        )
    )


def succeed(previous: Product | None, wanted: Wanted, revision: int, now: datetime) -> Product:
    """Return the product after the put: `previous` itself when nothing changes.

    A picture keeps its revision while its place and the attributes stay; all that moves gets `revision`.
    """
    if previous is None:
        pictures = _pictures(wanted, {}, revision)
        return Product(
            wanted.product_id,
            wanted.title,
            wanted.description,
            wanted.attributes,
            pictures,
            revision,
            created_at=now,
            updated_at=now,
        )
    same_attributes = _canonical(previous.attributes) == _canonical(wanted.attributes)
    pictures = _kept(previous, wanted, same_attributes, revision)
    if (
        same_attributes
        and pictures == previous.pictures
        and (wanted.title, wanted.description) == (previous.title, previous.description)
    ):
        return previous
    return replace(
        previous,
        title=wanted.title,
        description=wanted.description,
        attributes=wanted.attributes,
        pictures=pictures,
        revision=revision,
        updated_at=now,
    )


def _kept(previous: Product, wanted: Wanted, same_attributes: bool, revision: int) -> tuple[Picture, ...]:
    if wanted.pictures is not None:
        captions = {picture.image_id: picture.caption for picture in previous.pictures}
        pictures = _pictures(wanted, _settled_revisions(previous) if same_attributes else {}, revision)
        return tuple(replace(picture, caption=captions.get(picture.image_id)) for picture in pictures)
    if same_attributes:
        return previous.pictures
    return tuple(replace(picture, revision=revision) for picture in previous.pictures)


def _settled_revisions(product: Product) -> dict[tuple[str, int], int]:
    return {(picture.image_id, picture.position): picture.revision for picture in product.pictures}


def _pictures(wanted: Wanted, revisions: dict[tuple[str, int], int], revision: int) -> tuple[Picture, ...]:
    # A file that comes twice counts once, where it came first.
    distinct: dict[str, NewPicture] = {}
    for sha256, picture in wanted.pictures or ():
        distinct.setdefault(sha256, picture)
    return tuple(
        Picture(
            image_id=(key := image_id(wanted.product_id, sha256)),
            product_id=wanted.product_id,
            position=position,
            sha256=sha256,
            media_type=picture.media_type,
            width=picture.width,
            height=picture.height,
            bytes=len(picture.data),
            revision=revisions.get((key, position), revision),
        )
        for position, (sha256, picture) in enumerate(distinct.items())
    )


def _canonical(attributes: Attributes) -> str:
    # In JSON 1, 1.0 and true are three values; in Python they are equal.
    return json.dumps(attributes, sort_keys=True)
