"""Values that the layers exchange: encoders, inputs, products, rows and counts."""

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
_UNIT_TOLERANCE = 1e-3


def is_unit(vector: Vector) -> bool:
    """Return whether a vector (dimension,) has length 1, as those of encoders have; one with NaN has not."""
    return abs(float(np.linalg.norm(vector.astype(np.float64))) - 1) <= _UNIT_TOLERANCE


Modality = Literal["image", "text"]
SCORE_TOLERANCE = 1e-6
"""Cosines that differ by less are equal: with the number of hits and the filter, an engine's score of the same
two vectors varies by some 1e-7."""


@dataclass(frozen=True, slots=True)
class EncoderInfo:
    """Description of an encoder and its version.

    `fingerprint` is 12 lower-case hex digits over everything that changes a vector: weights, revision,
    preprocessing, pooling, precision and dimension. `index_schema` is 8 lower-case hex digits over the attributes
    that are fields of their own in the collection, or empty where there are none. Encoders do not know it: whoever
    asks one sets it.

    `captions` is a fingerprint of everything that changes a caption, and `matching` of everything that changes a
    score of the matching head; None where the encoder has none. Vectors do not depend on these, so they are not part
    of the version that the catalog registers.
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
    index_schema: str = ""
    matching: str | None = None

    @property
    def collection(self) -> str:
        """The Milvus collection that holds this version's vectors."""
        schema = f"_{self.index_schema}" if self.index_schema else ""
        return f"{self.name}_{self.fingerprint}{schema}"


@dataclass(frozen=True, slots=True)
class TokenCount:
    """Tokens that a text tower reads of some texts, and the number of texts that it cuts at its context."""

    tokens: int = 0
    cut_texts: int = 0


@dataclass(frozen=True, slots=True)
class Encoded:
    """Vectors of one encoder: a float32 unit vector of shape (dimension,) or an error, in input order.

    `tokens` counts those of all inputs that are texts.
    """

    info: EncoderInfo
    vectors: list[Vector | VitrineError]
    timings_ms: dict[str, float] = field(default_factory=dict)
    tokens: TokenCount = TokenCount()


@dataclass(frozen=True, slots=True)
class Captioned:
    """Captions of one encoder: a text or an error an image, in input order."""

    info: EncoderInfo
    texts: list[str | VitrineError]
    timings_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Matched:
    """Scores of how well a text fits images, in input order: higher is better.

    None stands for an image of which the encoder has neither the features nor the file.
    """

    info: EncoderInfo
    scores: list[float | VitrineError | None]
    timings_ms: dict[str, float] = field(default_factory=dict)


NamedFile = tuple[str, bytes | None]
"""sha256 of an image file, and its bytes where they are sent."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in the upright image, in shares of its width and height, from the top left.

    All four values are in [0, 1], `width` and `height` above 0, and the rectangle ends within the image.
    """

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Cropped:
    """The part `box` of an image file; the file is sent as it is and cut after decoding."""

    data: bytes
    box: Box


ImageInput = bytes | Cropped
"""Image input of an encoder: the bytes of a file, or a part of its image."""
EncoderInput = ImageInput | str
"""Input of an encoder: an image or a text."""


def _as_integer(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


WholeNumber = Annotated[int, BeforeValidator(_as_integer)]
"""An integer as JSON Schema defines it: 3.0 is one, and some languages write it so."""

PROBE: bytes = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABAAQMAAACQp+OdAAAABlBMVEX/QACAgIAuXkqhAAAAGklEQVR42mNkYGBg+M/AwMDEAAWjjFEG8QwA"
    "yyMBf5gYzUkAAAAASUVORK5CYII="
)
"""Image file that tests whether a model works, gray with one bright half; no cache holds its embedding."""
Attributes = Mapping[str, Any]
"""Attributes of a product: JSON values under names that the shop chooses."""


@dataclass(frozen=True, slots=True)
class ProductImage:
    """An image of a product in the catalog.

    `revision` changes with everything that a search uses of the image, and never repeats. `caption` is the newest
    caption, if any; comparisons of images ignore it.
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
    """A product with its images, in order."""

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
    """A decodable image file that is put into the catalog."""

    data: bytes
    media_type: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Caption:
    """A model's caption of an image."""

    model: str
    text: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class IndexItem:
    """An image at one revision, with the product's fields that its vector row repeats."""

    image_id: str
    revision: int
    product_id: str
    sha256: str
    attributes: Attributes
    bytes: int = 0
    """Size of the image file; 0 where it will not be read."""

    @property
    def key(self) -> str:
        """Primary key of its row in every collection; a written row never changes."""
        return row_key(self.image_id, self.revision)


def row_key(image_id: str, revision: int) -> str:
    """Return the primary key of an image at one revision, so that revisions never overwrite each other."""
    return f"{image_id}:{revision}"


def image_id_of(key: str) -> str:
    """Return the image id of a row key."""
    return key.rpartition(":")[0]


@dataclass(frozen=True, slots=True)
class IndexWork:
    """Ledger rows that one write has opened: the claim of its writer until `begun_at` and the grace are over.

    `missing` has the product's images that are not settled, for each registered collection, also where there are
    none. So an image is indexed in a collection that names others or none. `obsolete` has the keys of rows that are
    no longer current, and that no other writer holds, by collection.
    """

    begun_at: datetime
    missing: Mapping[str, Sequence[IndexItem]] = field(default_factory=dict)
    obsolete: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VectorRow:
    """A row of a collection: an indexed image and its float32 unit vector of shape (dimension,)."""

    item: IndexItem
    vector: Vector


@dataclass(frozen=True, slots=True)
class Hit:
    """A found image; `score` is the cosine similarity in [-1, 1], or the score of a fusion."""

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
    """Row keys whose vectors are being deleted, and the time at which that began."""

    keys: Sequence[str]
    begun_at: datetime


@dataclass(frozen=True, slots=True)
class LedgerCounts:
    """Progress of a collection: images in the catalog, indexed, failed (in quarantine) and missing."""

    images: int
    indexed: int
    failed: int
    missing: int


@dataclass(frozen=True, slots=True)
class CaptionCounts:
    """Progress of a version's captions: images in the catalog, captioned, failed and missing."""

    images: int
    captioned: int
    failed: int
    missing: int
