"""What every encoder family shares: picture files and words to unit vectors, each input on its own."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.errors import InvalidInput, UnsupportedModality, VitrineError
from core.types import EncoderInfo, Vector
from models.images import ImageLimits, decode_image
from models.isolation import embed_each

Pixels = NDArray[np.uint8]
"""A picture ready for the model: uint8, (3, height, width), RGB; the same shape for every picture."""

_GREY = 128
_SMALLEST_NORM = 1e-12
_log = logging.getLogger(__name__)


class Encoder(ABC):
    """A loaded model. `decode` may run in many threads; the rest wants one thread at a time.

    A family implements `preprocess`, `forward` and, with a text tower, `forward_texts`; all else is here.
    """

    info: EncoderInfo

    def __init__(self, info: EncoderInfo, limits: ImageLimits, draft_target: int | None) -> None:
        """`draft_target` is the side in pixels that pictures are resized to, or None to decode in full."""
        self.info = info
        self._limits = limits
        self._draft_target = draft_target

    @abstractmethod
    def preprocess(self, image: Image.Image) -> Pixels:
        """Resize and crop an RGB image of any size as the checkpoint was trained."""

    @abstractmethod
    def forward(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run uint8 (n, 3, height, width) through the model; float32 (n, dimension), not yet normalised."""

    def forward_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:  # noqa: ARG002
        """Run texts through the text tower; float32 (n, dimension), not yet normalised."""
        raise UnsupportedModality(
            f"{self.info.name} reads pictures only; send words to a model with a text tower"
        )

    def decode(self, data: bytes) -> Pixels:
        """Turn a picture file into model input, on the CPU.

        Raises:
            InvalidImage: the bytes do not decode.
            InputTooLarge: bytes or pixels exceed the limits.
        """
        return self.preprocess(decode_image(data, self._limits, self._draft_target))

    def encode_images(self, pictures: Sequence[Pixels]) -> list[Vector | VitrineError]:
        """Embed decoded pictures, in order: float32 unit vectors of shape (dimension,), or errors."""
        return embed_each(self._embed_images, pictures, self._is_healthy) if pictures else []

    def encode_texts(self, texts: Sequence[str]) -> list[Vector | VitrineError]:
        """Embed texts, in order: float32 unit vectors of shape (dimension,), or errors.

        Raises:
            UnsupportedModality: the model has no text tower.
        """
        if "text" not in self.info.modalities:
            self.forward_texts(texts)
        return embed_each(self._embed_texts, texts, self._is_healthy) if texts else []

    def warm_up(self) -> None:
        """Run one real picture, and one real text where there is a text tower, through the model.

        Raises:
            VitrineError: the model does not answer with a usable vector.
        """
        answers = self._embed_images([self._sample()])
        if "text" in self.info.modalities:
            answers += self._embed_texts(["a picture"])
        for answer in answers:
            if isinstance(answer, VitrineError):
                raise answer

    def _sample(self) -> Pixels:
        # Grey with one bright half: a flat picture may have a vector of zero norm in some families.
        image = Image.new("RGB", (64, 64), (_GREY, _GREY, _GREY))
        image.paste((255, 64, 0), (0, 0, 32, 64))
        return self.preprocess(image)

    def _is_healthy(self) -> bool:
        try:
            self.forward(self._sample()[None])
        except Exception:  # whatever it raises, the answer is no
            _log.exception("%s does not run", self.info.name)
            return False
        return True

    def _embed_images(self, pictures: Sequence[Pixels]) -> list[Vector | VitrineError]:
        return _unit(self.forward(np.stack(pictures)))

    def _embed_texts(self, texts: Sequence[str]) -> list[Vector | VitrineError]:
        return _unit(self.forward_texts(texts))


def _unit(rows: NDArray[np.float32]) -> list[Vector | VitrineError]:
    """Normalise rows in float32; a row that is not finite or has no length becomes an error."""
    norms = np.linalg.norm(rows, axis=1)
    good = np.isfinite(norms) & (norms > _SMALLEST_NORM)
    return [
        (row / norm).astype(np.float32)
        if fine
        else InvalidInput("the encoder finds no usable vector for this input")
        for row, norm, fine in zip(rows, norms, good, strict=True)
    ]
