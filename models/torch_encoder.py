"""Encoder of torch modules: placement, batches that fit the device, compilation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.errors import ConfigError, ModelUnavailable
from core.types import EncoderInfo
from models.colors import COLORS
from models.config import EncoderConfig
from models.encoder import Encoder, Pixels, fingerprint
from models.images import DRAFT_MARGIN, Decoded
from models.preprocessing import Preprocessing, read_jpeg

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.bfloat16}
"""Dtype of activations by precision; with int8 only the large matrices are 8 bit."""
_GRAPH_SIZES = (1, 8, 32, 128)
"""Batch sizes that a compiled model records; other batches are padded to the next size."""
_RUNS_UNTIL_RECORDED = 2
"""torch runs a new shape eagerly first, records a CUDA graph at the second run, and replays from the third on
(torch/_inductor/cudagraph_trees.py)."""


_BATCHES_UNTIL_LARGER = 64
"""Full batches after which a size that did not fit is tried again: memory may have run short for a moment."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Device and dtype of activations; with `eight_bit` the large matrices are int8.

    Columns with activations beyond a positive `int8_threshold` are multiplied in `dtype`.
    """

    device: torch.device
    dtype: torch.dtype
    eight_bit: bool
    int8_threshold: float


def place(config: EncoderConfig) -> Placement:
    """Choose the device and dtype of the model, and set the CPU threads of this process.

    Raises:
        ConfigError: the configuration needs a GPU and there is none.
    """
    has_gpu = torch.cuda.is_available()
    if config.device == "cuda" and not has_gpu:
        raise ConfigError(
            f"encoder {config.name} is set to device cuda, but this host shows no GPU; use auto or cpu"
        )
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    device = "cuda" if has_gpu and config.device != "cpu" else "cpu"
    return Placement(
        torch.device(device), _DTYPES[config.precision], config.precision == "int8", config.int8_threshold
    )


@dataclass(frozen=True, slots=True)
class LanguageTower:
    """A loaded language model; `write` turns the model's values (n, 3, h, w) on the device into n captions.

    Captions depend on `files`; a batch has at most `batch_size` images.
    """

    write: Callable[[Tensor], list[str]]
    files: tuple[Path, ...]
    batch_size: int


@dataclass(frozen=True, slots=True)
class Towers:
    """A loaded checkpoint.

    `image` takes the model's values (n, 3, h, w) on the device, `text` takes texts; both return (n, dimension)
    there. Vectors depend on `files`, and on `architecture` and `pooling`, which say how these are used.
    """

    image: Callable[[Tensor], Tensor]
    text: Callable[[Sequence[str]], Tensor] | None
    preprocessing: Preprocessing
    files: tuple[Path, ...]
    architecture: str
    pooling: str
    language: LanguageTower | None = None
    text_tokens: Callable[[str], int] = lambda _: 0
    """Counts the tokens of a text before it is cut at `context_length`; any thread may call it."""
    context_length: int = 0


Batch = TypeVar("Batch", NDArray[np.uint8], Sequence[str])
Output = TypeVar("Output")


class DeviceBatches:
    """Runs a model on batches of at most `size` inputs: fewer where GPU memory does not suffice, later more again."""

    def __init__(self, model: str, sizes: Sequence[int]) -> None:
        """`sizes` are the sizes that batches may have at most, ascending; it begins with the last."""
        self._model, self._sizes = model, sizes
        self.size = sizes[-1]
        self._full_batches = 0

    def run(self, forward: Callable[[Batch], Output], inputs: Batch) -> list[Output]:
        """Run all inputs, in order; returns one output a batch.

        Raises:
            ModelUnavailable: the device has no memory for even one input.
        """
        outputs: list[Output] = []
        start = 0
        while start < len(inputs):
            batch = inputs[start : start + self.size]
            try:
                outputs.append(forward(batch))
            except torch.OutOfMemoryError as error:
                if len(batch) == 1:
                    raise ModelUnavailable(
                        f"{self._model} has not enough GPU memory for one input"
                    ) from error
                self.size = max(size for size in self._sizes if size < len(batch))
                self._full_batches = 0
            else:
                start += len(batch)
                self._full_batches += len(batch) == self.size
                if self._full_batches >= _BATCHES_UNTIL_LARGER and self.size < self._sizes[-1]:
                    self.size = next(size for size in self._sizes if size > self.size)
                    self._full_batches = 0
                continue
            # Outside of the handler: the error's traceback holds the memory of the failed pass.
            torch.cuda.empty_cache()
        return outputs


class TorchEncoder(Encoder):
    """Runs the towers of any family."""

    def __init__(self, config: EncoderConfig, towers: Towers, placement: Placement) -> None:
        """Run one image to learn the dimension, and describe the version."""
        self._preprocessing, self._placement = towers.preprocessing, placement
        self._image, self._text = towers.image, towers.text
        for tower in (towers.image, towers.text):
            if isinstance(tower, nn.Module):
                tower.eval()
        self._language = towers.language
        if config.text_template is not None and towers.text is None:
            raise ConfigError("text_template is for models with a text tower, which this checkpoint lacks")
        self._text_template = config.text_template or "{}"
        self._text_tokens, self.context_length = towers.text_tokens, towers.context_length
        self._batches = DeviceBatches(config.name, _halves(config.max_batch_size))
        captioned = towers.language.batch_size if towers.language else 1
        self._caption_batches = DeviceBatches(config.name, _halves(captioned))
        self._graph_sizes: tuple[int, ...] = ()
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
        )
        target = max(towers.preprocessing.size) if config.draft else None
        super().__init__(info, config.limits, target, read_jpeg)
        if config.compile and placement.device.type == "cuda":
            self._compile()

    def preprocess(self, image: Decoded) -> Pixels:
        """Resize and crop an image as the checkpoint was trained."""
        pixels = image.image if image.pixels is None else image.pixels
        return self._preprocessing.apply(pixels, (image.height, image.width))

    def forward(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run uint8 (n, 3, h, w) through the image tower; float32 (n, dimension), not normalized.

        Raises:
            ModelUnavailable: the device has no memory for even one image.
        """
        return self._rows(self._run_images, batch)

    def forward_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Run texts through the text tower; float32 (n, dimension), not normalized."""
        if self._text is None:
            return super().forward_texts(texts)
        return self._rows(self._text, [self._put(text) for text in texts])

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

    def warm_up(self) -> None:
        """Run one real input through each tower; a compiled tower records all its batch sizes."""
        super().warm_up()
        for size in self._graph_sizes:
            for _ in range(_RUNS_UNTIL_RECORDED):
                self.forward(np.repeat(self._sample()[None], size, axis=0))

    def _put(self, text: str) -> str:
        return self._text_template.replace("{}", text)

    def _rows(self, run: Callable[[Batch], Tensor], inputs: Batch) -> NDArray[np.float32]:
        # Cast first: normalizing in less than float32 loses neighbors.
        with torch.inference_mode():
            rows = self._batches.run(lambda batch: run(batch).float().cpu(), inputs)
        return np.asarray(torch.cat(rows).numpy(), dtype=np.float32)

    def _run_images(self, batch: NDArray[np.uint8]) -> Tensor:
        count = len(batch)
        size = next((size for size in self._graph_sizes if size >= count), count)
        if size > count:
            batch = np.concatenate([batch, np.repeat(batch[-1:], size - count, axis=0)])
        return self._image(self._values(batch))[:count]

    def _values(self, batch: NDArray[np.uint8]) -> Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(batch))
        if self._placement.device.type == "cuda":
            pixels = pixels.pin_memory().to(self._placement.device, non_blocking=True)
        return self._preprocessing.normalize(pixels, self._placement.dtype)

    def _compile(self) -> None:
        largest = self._batches.size
        self._graph_sizes = (*(size for size in _GRAPH_SIZES if size < largest), largest)
        # Batches are padded to these sizes, so a smaller batch takes less memory only from one of them to the next.
        self._batches = DeviceBatches(self.info.name, self._graph_sizes)
        self._image = torch.compile(self._image, mode="reduce-overhead", dynamic=False)


def _halves(size: int) -> tuple[int, ...]:
    """Return a size, its half and so on down to 1, ascending."""
    return tuple(sorted({size >> power for power in range(size.bit_length())}))


def _caption_version(config: EncoderConfig, towers: Towers) -> str | None:
    if towers.language is None or config.captions is None:
        return None
    settings = config.captions.model_dump(exclude={"max_batch_size"})
    return fingerprint(towers.language.files, _facts(config, towers) | {"captions": settings})


def _facts(config: EncoderConfig, towers: Towers) -> dict[str, object]:
    return {
        "family": config.family,
        "architecture": towers.architecture,
        "revision": config.revision,
        "precision": config.precision,
        "int8_threshold": config.int8_threshold,
        "preprocessing": towers.preprocessing.facts(),
        "colors": COLORS,
        "draft": f"exact, {DRAFT_MARGIN} x" if config.draft else None,
    }
