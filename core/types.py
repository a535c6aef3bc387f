"""Values that travel between the layers: encoders, inputs, products, rows and counts."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator

from core.errors import VitrineError

Vector = NDArray[np.float32]
Modality = Literal["image", "text"]


@dataclass(frozen=True, slots=True)
class EncoderInfo:
    """What an encoder says of itself.

    `fingerprint` is 12 lower-case hex digits over everything that moves a vector: weights, revision,
    preprocessing, pooling, precision and dimension. `captions` is the like over everything that moves a
    caption, language model and settings included, or None where the encoder writes none; vectors do not
    depend on it, so it is no part of the version that the catalog registers.
    """

    name: str
    family: str
    checkpoint: str
    fingerprint: str
    dimension: int
    modalities: tuple[Modality, ...]
    precision: str
    device: str
    captions: str | None = None

    @property
    def collection(self) -> str:
        """The Milvus collection that holds this version's vectors."""
        return f"{self.name}_{self.fingerprint}"


@dataclass(frozen=True, slots=True)
class Encoded:
    """One encoder's answer: a float32 unit vector of shape (dimension,) or an error, in input order."""

    info: EncoderInfo
    vectors: list[Vector | VitrineError]
    timings_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Captioned:
    """One encoder's captions of images: a text or an error each, in input order."""

    info: EncoderInfo
    texts: list[str | VitrineError]
    timings_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Box:
    """A part of an image in shares of its width and height, as a viewer shows it: upright, from the top left.

    All four are in [0, 1], `width` and `height` above 0, and the part ends within the image.
    """

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Cropped:
    """The part `box` of the image in the bytes of a file; it travels whole and is cut where it is decoded."""

    data: bytes
    box: Box


ImageInput = bytes | Cropped
"""An image that an encoder takes: the bytes of a file, whole or a part of what they show."""


EncoderInput = ImageInput | str
"""What an encoder takes: an image, or words."""


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


WholeNumber = Annotated[int, BeforeValidator(_whole)]
"""An integer of JSON as JSON Schema has it: 3.0 is one too, and some languages write it so."""

PROBE: ImageInput = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABAAQMAAACQp+OdAAAABlBMVEX/QACAgIAuXkqhAAAAGklEQVR42mNkYGBg+M/AwMDEAAWjjFEG8QwA"
    "yyMBf5gYzUkAAAAASUVORK5CYII="
)
"""An image file, gray with one bright half, that asks whether a model works: no cache holds its embedding."""


Attributes = Mapping[str, Any]
"""What a shop knows of a product: JSON values under names of its choice."""


@dataclass(frozen=True, slots=True)
class ProductImage:
    """An image of a product as the catalog keeps it.

    `revision` changes whenever anything that a search sees of the image changes, and never repeats.
    `caption` is the newest that a model has written, if any; it is no part of what makes an image the same.
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
    """A product with its images in their order."""

    product_id: str
    title: str
    description: str
    attributes: Attributes
    images: tuple[ProductImage, ...]
    revision: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class NewImage:
    """A decodable image file on its way into the catalog."""

    data: bytes
    media_type: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Caption:
    """What a model has written about an image."""

    model: str
    text: str
    created_at: datetime


SCORE_TOLERANCE = 1e-6
"""Cosines that differ by less are equal: an engine's score of the same two vectors moves by some 1e-7, with the
number of hits that are asked for and with the filter."""


@dataclass(frozen=True, slots=True)
class IndexItem:
    """An image at one revision with what its vector row repeats of the product."""

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
    """The primary key of an image at one revision: revisions never overwrite each other."""
    return f"{image_id}:{revision}"


@dataclass(frozen=True, slots=True)
class VectorRow:
    """A row of a collection: an indexed image and its float32 unit vector of shape (dimension,)."""

    item: IndexItem
    vector: Vector


@dataclass(frozen=True, slots=True)
class Hit:
    """A found image; `score` is the cosine similarity in [-1, 1], or what a fusion makes of it."""

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


@dataclass(frozen=True, slots=True)
class LedgerCounts:
    """How far a collection has come: images in the catalog, indexed, failed (quarantine) and missing."""

    images: int
    indexed: int
    failed: int
    missing: int


@dataclass(frozen=True, slots=True)
class CaptionCounts:
    """How far a version's captions have come: images in the catalog, captioned, failed and missing."""

    images: int
    captioned: int
    failed: int
    missing: int


__all__ = [
    "PROBE",
    "SCORE_TOLERANCE",
    "Attributes",
    "Box",
    "Caption",
    "CaptionCounts",
    "Captioned",
    "CollectionInfo",
    "Cropped",
    "Encoded",
    "EncoderInfo",
    "EncoderInput",
    "Hit",
    "ImageInput",
    "IndexItem",
    "LedgerCounts",
    "Modality",
    "NewImage",
    "Product",
    "ProductImage",
    "Removal",
    "Vector",
    "VectorRow",
    "WholeNumber",
    "row_key",
]
