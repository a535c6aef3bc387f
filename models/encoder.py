"""Base of every encoder, from image files and texts to unit vectors.

The fingerprint of a version and the loading of an encoder stand here too.
"""

import ctypes
import hashlib
import json
import logging
import math
import os
import platform
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.errors import (
    ConfigError,
    InvalidInput,
    ModelUnavailable,
    UnsupportedModality,
    VitrineError,
    expected,
)
from core.types import EncoderInfo, EncoderInput, ImageInput, TokenCount, Vector
from models.config import EncoderConfig
from models.images import Decoded, ImageLimits, Preprocess, ReadJpeg, decode_image, not_prepared
from models.matching import Features

Input = TypeVar("Input")
Output = TypeVar("Output")
_log = logging.getLogger(__name__)
_GRAY = 128
SAMPLE_TEXT = "an image"
_NO_SCORE = "the encoder finds no usable score for this image"
_SMALLEST_NORM = 1e-12


def answer_each(
    answer: Callable[[Sequence[Input]], list[Output | VitrineError]],
    inputs: Sequence[Input],
    is_healthy: Callable[[], bool],
) -> list[Output | VitrineError]:
    """Answer all inputs, in order; one that makes `answer` raise costs only its own answer.

    Inputs are pixels of one shape and type, or texts; damaged files were found when they were decoded. A batch
    that fails is split while `is_healthy` says that the model works. An input that then fails alone has met a
    bug: its answer is Internal, and the log holds the traceback. Where the model does not work, every missing
    answer is ModelUnavailable.
    """
    try:
        return answer(inputs)
    except (ModelUnavailable, MemoryError) as error:
        lack = (
            error if isinstance(error, ModelUnavailable) else ModelUnavailable("no memory left for the model")
        )
        return [lack for _ in inputs]
    except Exception as error:  # libraries raise anything, and other inputs must not suffer
        if not is_healthy():
            _log.exception("a batch of %d failed, and so does the model", len(inputs))
            return [ModelUnavailable("the encoder fails on every input") for _ in inputs]
        if len(inputs) == 1:
            return [expected(error, "encoding this input")]
    middle = len(inputs) // 2
    return [
        *answer_each(answer, inputs[:middle], is_healthy),
        *answer_each(answer, inputs[middle:], is_healthy),
    ]


Pixels = NDArray[np.uint8]
"""Image as model input: uint8, (3, height, width), RGB; the same shape for every image."""


class Encoder(ABC):
    """A loaded model. `decode` may run in many threads; all else runs in one thread at a time.

    A family implements `preprocess` and `forward`; with a text tower also `forward_texts`, with a language model
    also `write`, with a matching head also `look` and `judge`.
    """

    info: EncoderInfo
    runs_ahead = False
    """True where `start_images` and `start_texts` return before the device has the answers."""
    ends_process = False
    """True in a process of Ray's, which starts another in its place and repeats the calls there."""
    context_length = 0
    """Most tokens that the model reads of a text."""
    gpu_jpegs: Callable[[Sequence[bytes]], list["Pixels | None"]] | None = None
    """Turns JPEG files into model input on the GPU, with `decode_on_gpu`; None for what the CPU has to decode."""

    def __init__(
        self,
        info: EncoderInfo,
        limits: ImageLimits,
        draft_target: int | None,
        read_jpeg: ReadJpeg | None = None,
    ) -> None:
        """`draft_target` is the side in pixels that images are resized to, or None to decode in full.

        `read_jpeg` reads those JPEGs of which nothing but the pixels counts, where it is faster than Pillow.
        """
        self.info = info
        self._read_jpeg = read_jpeg
        self._limits = limits
        self._draft_target = draft_target

    @abstractmethod
    def preprocess(self, image: Decoded) -> Pixels:
        """Resize and crop an image of any size as the checkpoint was trained."""

    @abstractmethod
    def forward(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run uint8 (n, 3, height, width) through the model; float32 (n, dimension), not yet normalized."""

    def forward_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:  # noqa: ARG002
        """Run texts through the text tower; float32 (n, dimension), not yet normalized."""
        raise UnsupportedModality(
            f"{self.info.name} takes images only; send text to a model with a text tower"
        )

    def text_tokens(self, text: str) -> int:  # noqa: ARG002
        """Count the tokens of a text before it is cut at `context_length`; 0 without a text tower."""
        return 0

    def write(self, batch: NDArray[np.uint8]) -> list[str]:
        """Caption uint8 (n, 3, height, width), a text an image."""
        raise NotImplementedError(f"{type(self).__name__} has no language model")

    def look(self, batch: NDArray[np.uint8]) -> list[Features]:
        """Compute what the matching head needs of uint8 (n, 3, height, width), one entry an image."""
        raise NotImplementedError(f"{type(self).__name__} has no matching head")

    def judge(self, text: str, features: Sequence[Any]) -> list[float]:
        """Score how well a text fits each image, by what `look` returned."""
        raise NotImplementedError(f"{type(self).__name__} has no matching head")

    def decode(self, image: ImageInput) -> Pixels:
        """Turn an image file, or the part in its box, into model input, on the CPU.

        Raises:
            InvalidImage: the bytes do not decode.
            InputTooLarge: bytes or pixels exceed the limits.
            Internal: the file is sound, and the code that prepares it for the model fails on it.
            Overloaded: too many pixels are in flight in this process, or there is no memory left.
        """
        try:
            return self._decoder(self.preprocess)(image)
        except Exception as error:
            raise not_prepared(error, self.info.name) from None

    def decoder(self) -> Callable[[ImageInput], Pixels]:
        """Return what `decode` does, for another process: it can be pickled, and raises errors as they are."""
        return self._decoder(self.preprocessor())

    def preprocessor(self) -> Preprocess:
        """Return what `preprocess` does; a family whose model cannot be pickled leaves the model out."""
        return self.preprocess

    def encode_images(self, images: Sequence[Pixels] | Pixels) -> list[Vector | VitrineError]:
        """Embed decoded images, in order: float32 unit vectors of shape (dimension,), or errors.

        `images` may be one array (n, 3, height, width), which need not be gathered any more.
        """
        runs = partial(self._runs, lambda: self.forward(self._sample()[None]))
        return answer_each(self._embed_images, cast(Sequence[Pixels], images), runs) if len(images) else []

    def gather(self, images: Sequence[Pixels]) -> Pixels:
        """Make one array (n, 3, height, width) of images, in any thread."""
        return np.stack(images)

    def start_images(self, images: Sequence[Pixels] | Pixels) -> Callable[[], list[Vector | VitrineError]]:
        """Begin what `encode_images` does; what this returns waits for the answers, in any thread.

        Where `runs_ahead`, the next batch can begin meanwhile.
        """
        answers = self.encode_images(images)
        return lambda: answers

    def start_texts(self, texts: Sequence[str]) -> Callable[[], list[Vector | VitrineError]]:
        """Begin what `encode_texts` does, as `start_images`.

        Raises:
            UnsupportedModality: the model has no text tower.
        """
        answers = self.encode_texts(texts)
        return lambda: answers

    def encode_texts(self, texts: Sequence[str]) -> list[Vector | VitrineError]:
        """Embed texts, in order: float32 unit vectors of shape (dimension,), or errors.

        Raises:
            UnsupportedModality: the model has no text tower.
        """
        if "text" not in self.info.modalities:
            self.forward_texts(texts)
        runs = partial(self._runs, lambda: self.forward_texts([SAMPLE_TEXT]))
        return answer_each(self._embed_texts, texts, runs) if texts else []

    def count_tokens(self, inputs: Sequence[EncoderInput]) -> TokenCount:
        """Count the tokens that the model reads of the texts, special ones included; any thread may call it."""
        counts = [self.text_tokens(item) for item in inputs if isinstance(item, str)]
        longest = self.context_length
        return TokenCount(sum(min(each, longest) for each in counts), sum(each > longest for each in counts))

    def caption(self, images: Sequence[Pixels]) -> list[str | VitrineError]:
        """Caption decoded images, in order: texts, or errors.

        Raises:
            UnsupportedModality: the model writes no captions.
        """
        if self.info.captions is None:
            raise UnsupportedModality(
                f"{self.info.name} writes no captions: its configuration does not ask for them"
            )
        runs = partial(self._runs, lambda: self.write(self._sample()[None]))
        return answer_each(self._describe, images, runs) if images else []

    def features(self, images: Sequence[Pixels]) -> list[Features | VitrineError]:
        """Compute what matching needs of decoded images, in order, or errors."""
        runs = partial(self._runs, lambda: self.look(self._sample()[None]))
        return answer_each(lambda some: list(self.look(np.stack(some))), images, runs) if images else []

    def match(self, text: str, features: Sequence[Features]) -> list[float | VitrineError]:
        """Score how well a text fits images, in order, or errors; a score that is not finite is one.

        Raises:
            UnsupportedModality: the model has no matching head.
        """
        if self.info.matching is None:
            raise UnsupportedModality(f"{self.info.name} has no matching head, so it cannot re-rank")
        runs = partial(self._runs, lambda: self.judge(text, self.look(self._sample()[None])))
        return answer_each(partial(self._score, text), features, runs) if features else []

    def _score(self, text: str, features: Sequence[Features]) -> list[float | VitrineError]:
        scores = self.judge(text, features)
        return [each if math.isfinite(each) else InvalidInput(_NO_SCORE) for each in scores]

    def warm_up(self) -> None:
        """Run one real image through every tower, and one real text where there is a text tower.

        Raises:
            VitrineError: the model does not answer with a usable vector.
        """
        answers = self._embed_images([self._sample()])
        if "text" in self.info.modalities:
            answers += self._embed_texts([SAMPLE_TEXT])
        for answer in answers:
            if isinstance(answer, VitrineError):
                raise answer
        if self.info.captions is not None:
            self.write(self._sample()[None])
        if self.info.matching is not None:
            self.judge(SAMPLE_TEXT, self.look(self._sample()[None]))

    def device_lost(self, error: Exception) -> NoReturn:
        """End what can use its device no more: every later call would fail, as after a failed assertion in CUDA.

        Raises:
            ModelUnavailable: this is no process of Ray's.
        """
        message = f"the device of the model failed: {error}"
        if self.ends_process:
            _log.critical("%s; the process of %s ends", message, self.info.name)
            os._exit(1)
        raise ModelUnavailable(message) from error

    def _decoder(self, preprocess: Preprocess) -> Callable[[ImageInput], Pixels]:
        settings: dict[str, Any] = {"target": self._draft_target, "read_jpeg": self._read_jpeg}
        return partial(decode_image, preprocess=preprocess, limits=self._limits, **settings)

    def _sample(self) -> Pixels:
        # Gray with one bright half: a flat image has a vector of zero norm in some families.
        image = Image.new("RGB", (64, 64), (_GRAY, _GRAY, _GRAY))
        image.paste((255, 64, 0), (0, 0, 32, 64))
        return self.preprocess(Decoded(image, *image.size))

    def _runs(self, model: Callable[[], object]) -> bool:
        try:
            model()
        except Exception:  # any error means that the model does not work
            _log.exception("%s does not run", self.info.name)
            return False
        return True

    def _embed_images(self, images: Sequence[Pixels] | Pixels) -> list[Vector | VitrineError]:
        return unit_vectors(self.forward(images if isinstance(images, np.ndarray) else np.stack(images)))

    def _embed_texts(self, texts: Sequence[str]) -> list[Vector | VitrineError]:
        return unit_vectors(self.forward_texts(texts))

    def _describe(self, images: Sequence[Pixels]) -> list[str | VitrineError]:
        nothing = "the model finds no words for this image"
        return [text or InvalidInput(nothing) for text in self.write(np.stack(images))]


def unit_vectors(rows: NDArray[np.float32]) -> list[Vector | VitrineError]:
    """Normalize rows in float32; a row that is not finite or has zero length becomes an error."""
    norms = np.linalg.norm(rows, axis=1)
    good = np.isfinite(norms) & (norms > _SMALLEST_NORM)
    units = np.asarray(rows / np.where(good, norms, 1)[:, None], np.float32)
    # Copies, for a view would keep the vectors of the whole batch.
    return [
        row.copy() if fine else InvalidInput("the encoder finds no usable vector for this input")
        for row, fine in zip(units, good.tolist(), strict=True)
    ]


_DIGITS = 12
_SHA256 = re.compile(r"[0-9a-f]{64}")
_BOOKKEEPING = {"_name_or_path", "transformers_version", "_commit_hash"}
"""Keys of a config.json that libraries rewrite without effect on the vectors."""


def fingerprint(files: Iterable[Path], settings: Mapping[str, object]) -> str:
    """Hash the files (weights, configs, tokenizers) and settings of a version; 12 lower-case hex digits.

    Two encoders share a fingerprint only if their vectors may be compared. It leaves out paths, device and host, so
    all replicas of a version report the same one.

    Files count by name and content, JSON files by value. `settings` must be JSON.
    """
    digests = {path.name: _digest(path) for path in files}
    content = json.dumps({"files": digests, "settings": settings}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(content.encode()).hexdigest()[:_DIGITS]


def _digest(path: Path) -> str:
    if path.suffix == ".json":
        return _json_digest(path)
    # The hub's cache names a large file by its sha256, so downloaded weights need not be read again.
    target = path.resolve()
    if path.is_symlink() and _SHA256.fullmatch(target.name):
        return target.name
    state = target.stat()
    return _file_digest(target, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=256)
def _file_digest(path: Path, _size: int, _modified_ns: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _json_digest(path: Path) -> str:
    value = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(value, dict):
        value = {key: item for key, item in value.items() if key not in _BOOKKEEPING}
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 2**30


def keep_freed_memory() -> None:
    """Let this process keep large freed blocks instead of returning them to the system (glibc's mallopt(3)).

    Otherwise each forward pass takes a page fault for every page of its activations: a tenth of the time of
    ViT-B-32 in float32 on two cores. The process stays as large as its largest batch made it.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        # Where the first is refused, the second alone would keep less than the default.
        if libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES):
            libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def load_encoder(config: EncoderConfig) -> Encoder:
    """Load the encoder by the module of its family, and run it once.

    Raises:
        ConfigError: the checkpoint is missing, of another family, incomplete or unreadable.
        ModelUnavailable: the hub cannot be reached, or the device lacks memory.
    """
    try:
        encoder: Encoder = import_module(f"models.{config.family}").load(config)
        if encoder.info.device == "cpu":
            # After the weights, so that what loading frees goes back.
            keep_freed_memory()
        encoder.warm_up()
    except VitrineError as error:
        kind = ModelUnavailable if isinstance(error, ModelUnavailable) else ConfigError
        raise kind(f"encoder {config.name}: {error.message}") from error
    except Exception as error:  # each library fails in its own way
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            lack = f"encoder {config.name}: no memory left to load {config.checkpoint} on {config.device}"
            raise ModelUnavailable(lack) from error
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        message = f"{config.checkpoint} does not load as family {config.family} ({reason})"
        raise ConfigError(f"encoder {config.name}: {message}") from error
    return encoder
