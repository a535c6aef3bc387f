"""Rows of collections, and what a search finds among them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from core.types.encoders import Vector
from core.types.products import Attributes

SCORE_TOLERANCE = 1e-6
"""Cosines that differ by less are equal: an engine's score of the same two vectors moves by some 1e-7, with the
number of hits that are asked for and with the filter."""


@dataclass(frozen=True, slots=True)
class IndexItem:
    """A picture at one revision with what its vector row repeats of the product."""

    image_id: str
    revision: int
    product_id: str
    sha256: str
    attributes: Attributes
    bytes: int = 0
    """Of the image file; 0 where nobody will read it."""

    @property
    def key(self) -> str:
        """Primary key of its row in every collection; a row is never changed once written."""
        return row_key(self.image_id, self.revision)


def row_key(image_id: str, revision: int) -> str:
    """The primary key of a picture at one revision: revisions never overwrite each other."""
    return f"{image_id}:{revision}"


@dataclass(frozen=True, slots=True)
class VectorRow:
    """A row of a collection: an indexed picture and its float32 unit vector of shape (dimension,)."""

    item: IndexItem
    vector: Vector


@dataclass(frozen=True, slots=True)
class Hit:
    """A found picture; `score` is the cosine similarity in [-1, 1], or what a fusion makes of it."""

    image_id: str
    revision: int
    product_id: str
    score: float


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """A collection as Milvus reports it."""

    name: str
    dimension: int
    rows: int


@dataclass(frozen=True, slots=True)
class Removal:
    """Row keys whose vectors are being deleted, and when that began."""

    keys: Sequence[str]
    begun_at: datetime
