"""What encoders say and answer."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

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
    """One encoder's captions of pictures: a text or an error each, in input order."""

    info: EncoderInfo
    texts: list[str | VitrineError]
    timings_ms: dict[str, float] = field(default_factory=dict)
