"""What every encoder family shares: picture files and words to unit vectors, each input on its own."""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.errors import InvalidInput, UnsupportedModality, VitrineError, expected
from core.types import Cropped, EncoderInfo, PictureInput, Vector
from models.cropping import Decoded
from models.images import ImageLimits, decoding, no_memory
from models.isolation import answer_each

Pixels = NDArray[np.uint8]
"""A picture ready for the model: uint8, (3, height, width), RGB; the same shape for every picture."""

_GREY = 128
_SMALLEST_NORM = 1e-12
_PATIENCE_S = 30.0
"""How long an image waits for those that are decoded before it; a caller with less time is gone sooner."""
_log = logging.getLogger(__name__)


class Encoder(ABC):
    """A loaded model. `decode` may run in many threads; the rest wants one thread at a time.

    A family implements `preprocess`, `forward` and, with a text tower, `forward_texts`, with a language
    model `write`; all else is here.
    """

    info: EncoderInfo

    def __init__(self, info: EncoderInfo, limits: ImageLimits, draft_target: int | None) -> None:
        """`draft_target` is the side in pixels that pictures are resized to, or None to decode in full."""
        self.info = info
        self._limits = limits
        self._draft_target = draft_target

    @abstractmethod
    def preprocess(self, picture: Decoded) -> Pixels:
        """Resize and crop a picture of any size as the checkpoint was trained."""

    @abstractmethod
    def forward(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run uint8 (n, 3, height, width) through the model; float32 (n, dimension), not yet normalised."""

    def forward_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:  # noqa: ARG002
        """Run texts through the text tower; float32 (n, dimension), not yet normalised."""
        raise UnsupportedModality(
            f"{self.info.name} reads pictures only; send words to a model with a text tower"
        )

    def write(self, batch: NDArray[np.uint8]) -> list[str]:
        """Describe uint8 (n, 3, height, width) in words, a text a picture."""
        raise NotImplementedError(f"{type(self).__name__} has no language model")

    def decode(self, picture: PictureInput) -> Pixels:
        """Turn a picture file, or what its box leaves of it, into model input, on the CPU.

        Raises:
            InvalidImage: the bytes do not decode.
            InputTooLarge: bytes or pixels exceed the limits.
            Internal: the file is sound, and the code that prepares it for the model fails on it.
            Overloaded: too many pixels are in flight in this process, or there is no memory left.
        """
        data, box = (picture.data, picture.box) if isinstance(picture, Cropped) else (picture, None)
        until = time.monotonic() + _PATIENCE_S
        try:
            with decoding(data, self._limits, self._draft_target, box, until) as decoded:
                return self.preprocess(decoded)
        except MemoryError:
            raise no_memory() from None
        except Exception as error:
            raise expected(error, f"preparing an image for {self.info.name}") from None

    def encode_images(self, pictures: Sequence[Pixels]) -> list[Vector | VitrineError]:
        """Embed decoded pictures, in order: float32 unit vectors of shape (dimension,), or errors."""
        return answer_each(self._embed_images, pictures, self._is_healthy) if pictures else []

    def encode_texts(self, texts: Sequence[str]) -> list[Vector | VitrineError]:
        """Embed texts, in order: float32 unit vectors of shape (dimension,), or errors.

        Raises:
            UnsupportedModality: the model has no text tower.
        """
        if "text" not in self.info.modalities:
            self.forward_texts(texts)
        return answer_each(self._embed_texts, texts, self._is_healthy) if texts else []

    def caption(self, pictures: Sequence[Pixels]) -> list[str | VitrineError]:
        """Describe decoded pictures in words, in order: captions, or errors.

        Raises:
            UnsupportedModality: the model writes no captions.
        """
        if self.info.captions is None:
            raise UnsupportedModality(
                f"{self.info.name} writes no captions: its configuration does not ask for them"
            )
        return answer_each(self._describe, pictures, self._can_write) if pictures else []

    def warm_up(self) -> None:
        """Run one real picture through all that the model can do with it, and one real text where it reads.

        Raises:
            VitrineError: the model does not answer with a usable vector.
        """
        answers = self._embed_images([self._sample()])
        if "text" in self.info.modalities:
            answers += self._embed_texts(["a picture"])
        for answer in answers:
            if isinstance(answer, VitrineError):
                raise answer
        if self.info.captions is not None:
            self.write(self._sample()[None])

    def _sample(self) -> Pixels:
        # Grey with one bright half: a flat picture may have a vector of zero norm in some families.
        image = Image.new("RGB", (64, 64), (_GREY, _GREY, _GREY))
        image.paste((255, 64, 0), (0, 0, 32, 64))
        return self.preprocess(Decoded(image, *image.size))

    def _is_healthy(self) -> bool:
        return self._runs(self.forward)

    def _can_write(self) -> bool:
        return self._runs(self.write)

    def _runs(self, model: Callable[[NDArray[np.uint8]], object]) -> bool:
        try:
            model(self._sample()[None])
        except Exception:  # whatever it raises, the answer is no
            _log.exception("%s does not run", self.info.name)
            return False
        return True

    def _embed_images(self, pictures: Sequence[Pixels]) -> list[Vector | VitrineError]:
        return _unit(self.forward(np.stack(pictures)))

    def _embed_texts(self, texts: Sequence[str]) -> list[Vector | VitrineError]:
        return _unit(self.forward_texts(texts))

    def _describe(self, pictures: Sequence[Pixels]) -> list[str | VitrineError]:
        nothing = "the model finds no words for this picture"
        return [text or InvalidInput(nothing) for text in self.write(np.stack(pictures))]


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
