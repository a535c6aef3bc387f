"""Encoder of torch modules of any family: batches on the device, compilation."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.errors import ConfigError, ModelUnavailable, VitrineError, expected
from core.types import EncoderInfo, Vector
from models.config import EncoderConfig
from models.device import Batch, DeviceBatches, Placement, Transfers, is_fatal
from models.encoder import SAMPLE_TEXT, Encoder, Pixels, fingerprint, unit_vectors
from models.gpu_jpeg import GPU_JPEG, gpu_jpegs
from models.image_formats import COLORS
from models.images import DRAFT_MARGIN, Decoded, Preprocess
from models.matching import Features
from models.preprocessing import Preprocessing, read_jpeg

# The pixels of a bulk build lie in Ray's shared memory, which is read-only; nothing here writes to a batch.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")

_GRAPH_SIZES = (1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768)
"""Batch sizes that a compiled model records; other batches are padded to the next size, by half at most."""
_COMPILATIONS_A_SIZE = 2
"""A block of the model that both towers have counts for both."""
_RUNS_UNTIL_RECORDED = 2
"""torch runs a new shape eagerly first, records a CUDA graph at the second run, and replays from the third on
(torch/_inductor/cudagraph_trees.py)."""


Tokens = Mapping[str, Tensor]
"""Arguments of a text tower by their names, each (n, ...)."""


@dataclass(frozen=True, slots=True)
class LanguageTower:
    """A loaded language model; `write` turns the model's values (n, 3, h, w) on the device into n captions.

    Captions depend on `files`; a batch has at most `batch_size` images.
    """

    write: Callable[[Tensor], list[str]]
    files: tuple[Path, ...]
    batch_size: int


@dataclass(frozen=True, slots=True)
class MatchingHead:
    """A loaded head that scores how well texts fit images; the scores depend on `files`.

    `look` turns the model's values (n, 3, h, w) on the device into n features in main memory. `judge` turns a text
    and m features into scores (m,) on the device.
    """

    look: Callable[[Tensor], list[Features]]
    judge: Callable[[str, Sequence[Any]], Tensor]
    files: tuple[Path, ...]
    score: str
    """Name of the score's formula."""


@dataclass(frozen=True, slots=True)
class Towers:
    """A loaded checkpoint.

    `image` takes the model's values (n, 3, h, w) on the device, `text` takes there what `tokens` makes of n texts in
    main memory; both return (n, dimension) on the device. Vectors depend on `files`, and on `architecture` and
    `pooling`, which say how these are used.
    """

    image: Callable[[Tensor], Tensor]
    text: Callable[..., Tensor] | None
    preprocessing: Preprocessing
    files: tuple[Path, ...]
    architecture: str
    pooling: str
    language: LanguageTower | None = None
    matching: MatchingHead | None = None
    text_tokens: Callable[[str], int] = lambda _: 0
    """Counts the tokens of a text before it is cut at `context_length`; any thread may call it."""
    context_length: int = 0
    tokens: Callable[[Sequence[str]], Tokens] | None = None
    """Reads texts as the arguments of `text`; None without a text tower."""
    has_one_length: bool = False
    """True where all texts have as many tokens, so that the text tower can be compiled too."""


class TorchEncoder(Encoder):
    """Runs the towers of any family."""

    def __init__(self, config: EncoderConfig, towers: Towers, placement: Placement) -> None:
        """Run one image to learn the dimension, and describe the version."""
        self._preprocessing, self._placement = towers.preprocessing, placement
        self._transfers = Transfers(placement.device)
        self.runs_ahead = self._transfers.are_apart
        self._image, self._text, self._tokens = towers.image, towers.text, towers.tokens
        for tower in (towers.image, towers.text):
            if isinstance(tower, nn.Module):
                tower.eval()
        self._language, self._matching = towers.language, towers.matching
        if config.text_template is not None and towers.text is None:
            raise ConfigError("text_template is for models with a text tower, which this checkpoint lacks")
        self._text_template = config.text_template or "{}"
        self._text_tokens, self.context_length = towers.text_tokens, towers.context_length
        self._batches = DeviceBatches(config.name, _halves(config.max_batch_size), self.device_lost)
        captioned = towers.language.batch_size if towers.language else 1
        self._caption_batches = DeviceBatches(config.name, _halves(captioned), self.device_lost)
        self._graph_sizes: tuple[int, ...] = ()
        self._text_sizes: tuple[int, ...] = ()
        dimension = self.forward(self._sample()[None]).shape[1]
        info = EncoderInfo(
            name=config.name,
            family=config.family,
            checkpoint=f"{config.checkpoint}:{config.pretrained}" if config.pretrained else config.checkpoint,
            fingerprint=fingerprint(
                towers.files, _facts(config, towers) | {"pooling": towers.pooling, "dimension": dimension}
            ),
            dimension=dimension,
            modalities=("image", "text") if towers.text else ("image",),
            precision=config.precision,
            device=placement.device.type,
            captions=_caption_version(config, towers),
            matching=_matching_version(config, towers),
        )
        if config.decode_on_gpu:
            self.gpu_jpegs = gpu_jpegs(towers.preprocessing, config.limits, placement.device)
        target = max(towers.preprocessing.size) if config.draft else None
        super().__init__(info, config.limits, target, read_jpeg)
        if compiles(config, placement):
            self._compile(towers.has_one_length)

    def preprocess(self, image: Decoded) -> Pixels:
        """Resize and crop an image as the checkpoint was trained."""
        return self._preprocessing.apply_to(image)

    def preprocessor(self) -> Preprocess:
        """Return what `preprocess` does, without the model."""
        return self._preprocessing.apply_to

    def forward(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run uint8 (n, 3, h, w) through the image tower; float32 (n, dimension), not normalized.

        Raises:
            ModelUnavailable: the device has no memory for even one image.
        """
        return self._start(self._run_images, batch)()

    def forward_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Run texts through the text tower; float32 (n, dimension), not normalized."""
        if self._text is None:
            return super().forward_texts(texts)
        return self._start(self._run_texts, [self._put(text) for text in texts])()

    def gather(self, images: Sequence[Pixels]) -> Pixels:
        """Make one array (n, 3, height, width) of images, in memory from which a GPU copies by itself."""
        return self._transfers.gather(images)

    def start_images(self, images: Sequence[Pixels] | Pixels) -> Callable[[], list[Vector | VitrineError]]:
        """Begin to embed decoded images; what this returns waits for the answers, in any thread."""

        def start() -> Callable[[], NDArray[np.float32]]:
            batch = images if isinstance(images, np.ndarray) else self.gather(images)
            return self._start(self._run_images, batch)

        return self._ahead(start, images, super().start_images)

    def start_texts(self, texts: Sequence[str]) -> Callable[[], list[Vector | VitrineError]]:
        """Begin to embed texts; what this returns waits for the answers, in any thread."""
        put = [self._put(text) for text in texts]
        return self._ahead(partial(self._start, self._run_texts, put), texts, super().start_texts)

    def text_tokens(self, text: str) -> int:
        """Count the tokens of a text before it is cut at `context_length`."""
        return self._text_tokens(self._put(text))

    def write(self, batch: NDArray[np.uint8]) -> list[str]:
        """Caption uint8 (n, 3, h, w), a text an image.

        Raises:
            ModelUnavailable: the device has no memory for even one image.
        """
        if (language := self._language) is None:
            return super().write(batch)
        with torch.inference_mode():
            written = self._caption_batches.run(lambda some: language.write(self._values(some)), batch)
        return [text for texts in written for text in texts]

    def look(self, batch: NDArray[np.uint8]) -> list[Features]:
        """Compute what the matching head needs of uint8 (n, 3, h, w), one entry an image.

        Raises:
            ModelUnavailable: the device has no memory for even one image.
        """
        if (matching := self._matching) is None:
            return super().look(batch)
        with torch.inference_mode():
            looked = self._batches.run(lambda some: matching.look(self._values(some)), batch)
        return [each for some in looked for each in some]

    def judge(self, text: str, features: Sequence[Any]) -> list[float]:
        """Score how well a text fits each image, by what `look` returned."""
        if (matching := self._matching) is None:
            return super().judge(text, features)
        put = self._put(text)
        with torch.inference_mode():
            judged = self._batches.run(lambda some: matching.judge(put, some).float().cpu(), features)
        scores: list[float] = torch.cat(judged).tolist()
        return scores

    def warm_up(self) -> None:
        """Run one real input through each tower; a compiled tower records all its batch sizes."""
        super().warm_up()
        for _ in range(_RUNS_UNTIL_RECORDED):
            for size in self._graph_sizes:
                self.forward(np.repeat(self._sample()[None], size, axis=0))
            for size in self._text_sizes:
                self.forward_texts([SAMPLE_TEXT] * size)

    def _put(self, text: str) -> str:
        return self._text_template.replace("{}", text)

    def _start(self, run: Callable[[Batch], Tensor], inputs: Batch) -> Callable[[], NDArray[np.float32]]:
        """Have the device begin; what this returns waits for float32 (n, dimension), not normalized."""
        with torch.inference_mode():
            fetched = self._batches.run(lambda batch: self._transfers.fetch(run(batch), batch), inputs)

        def rows() -> NDArray[np.float32]:
            try:
                return np.concatenate([each.rows() for each in fetched])
            except RuntimeError as error:
                # A kernel that fails is reported where its results are waited for.
                if is_fatal(error):
                    self.device_lost(error)
                raise

        return rows

    def _ahead(
        self,
        start: Callable[[], Callable[[], NDArray[np.float32]]],
        inputs: Any,
        at_once: Callable[[Any], Callable[[], list[Vector | VitrineError]]],
    ) -> Callable[[], list[Vector | VitrineError]]:
        if not self.runs_ahead or not len(inputs):
            return at_once(inputs)
        rows: Callable[[], NDArray[np.float32]] | None = None
        with suppress(Exception):
            rows = start()
        if rows is None:
            # What failed is raised again there, or found to be the fault of one input. Outside of a handler: the
            # error's traceback holds the memory of the failed pass.
            return at_once(inputs)
        begun, count = rows, len(inputs)

        def answers() -> list[Vector | VitrineError]:
            try:
                return unit_vectors(begun())
            except (MemoryError, RuntimeError) as error:
                # The fault of no input, none of which a build may give up for it.
                lack = ModelUnavailable(f"the answers of {self.info.name} could not be read: {error}")
                return [lack] * count
            except Exception as error:
                return [expected(error, f"encoding with {self.info.name}")] * count

        return answers

    def _run_images(self, batch: NDArray[np.uint8]) -> Tensor:
        return self._image(_padded(self._values(batch), self._graph_sizes))[: len(batch)]

    def _run_texts(self, texts: Sequence[str]) -> Tensor:
        if self._text is None or self._tokens is None:
            raise ConfigError("this checkpoint has no text tower")
        tokens = {name: self._transfers.send(each) for name, each in self._tokens(texts).items()}
        return self._text(**{name: _padded(each, self._text_sizes) for name, each in tokens.items()})[
            : len(texts)
        ]

    def _values(self, batch: NDArray[np.uint8]) -> Tensor:
        pixels = self._transfers.send(torch.from_numpy(np.ascontiguousarray(batch)))
        return self._preprocessing.normalize(pixels, self._placement.dtype)

    def _compile(self, text_too: bool) -> None:
        largest = self._batches.size
        self._graph_sizes = (*(size for size in _GRAPH_SIZES if size < largest), largest)
        # Batches are padded to these sizes, so a smaller batch takes less memory only from one of them to the next.
        self._batches = DeviceBatches(self.info.name, self._graph_sizes, self.device_lost)
        self._image = self._compiled(self._image)
        if self._text is not None and text_too:
            self._text, self._text_sizes = self._compiled(self._text), self._graph_sizes

    def _compiled(self, tower: Callable[..., Tensor]) -> Callable[..., Tensor]:
        # Beyond this limit, 8 by default, torch runs a further size without compiling it, and only warns.
        dynamo = torch._dynamo.config
        dynamo.recompile_limit = max(dynamo.recompile_limit, _COMPILATIONS_A_SIZE * len(self._graph_sizes))
        return torch.compile(tower, mode="reduce-overhead", dynamic=False)


def compiles(config: EncoderConfig, placement: Placement) -> bool:
    """Return whether the model is to be compiled: only for a GPU."""
    return config.compile and placement.device.type == "cuda"


def _padded(values: Tensor, sizes: Sequence[int]) -> Tensor:
    """Repeat the last of n values up to the least of these ascending sizes that is large enough, if one is."""
    size = next((size for size in sizes if size >= len(values)), len(values))
    if size == len(values):
        return values
    return torch.cat([values, values[-1:].expand(size - len(values), *values.shape[1:])])


def _halves(size: int) -> tuple[int, ...]:
    """Return a size, its half and so on down to 1, ascending."""
    return tuple(sorted({size >> power for power in range(size.bit_length())}))


def _caption_version(config: EncoderConfig, towers: Towers) -> str | None:
    if towers.language is None or config.captions is None:
        return None
    settings = config.captions.model_dump(exclude={"max_batch_size"})
    return fingerprint(towers.language.files, _facts(config, towers) | {"captions": settings})


def _matching_version(config: EncoderConfig, towers: Towers) -> str | None:
    if towers.matching is None:
        return None
    template = {} if config.text_template is None else {"text_template": config.text_template}
    return fingerprint(
        towers.matching.files, _facts(config, towers) | template | {"score": towers.matching.score}
    )


def _facts(config: EncoderConfig, towers: Towers) -> dict[str, object]:
    return {
        **({"jpeg": GPU_JPEG} if config.decode_on_gpu else {}),
        "family": config.family,
        "architecture": towers.architecture,
        "revision": config.revision,
        "precision": config.precision,
        "int8_threshold": config.int8_threshold,
        "preprocessing": towers.preprocessing.facts(),
        "colors": COLORS,
        "draft": f"exact, {DRAFT_MARGIN} x" if config.draft else None,
    }
