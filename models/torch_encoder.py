"""Encoder of torch modules: placement, batches that fit the device, compilation."""

import re
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.errors import ConfigError, ModelUnavailable
from core.types import EncoderInfo
from models.colors import COLORS
from models.config import EncoderConfig
from models.encoder import Encoder, Pixels, fingerprint
from models.gpu_jpeg import GPU_JPEG, gpu_jpegs
from models.images import DRAFT_MARGIN, Decoded, Preprocess
from models.matching import Features
from models.preprocessing import Preprocessing, read_jpeg

# The pixels of a bulk build lie in Ray's shared memory, which is read-only; nothing here writes to a batch.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.bfloat16}
"""Dtype of activations by precision; with int8 only the large matrices are 8 bit."""
_GRAPH_SIZES = (1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768)
"""Batch sizes that a compiled model records; other batches are padded to the next size, by half at most."""
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
        ConfigError: the configuration needs a GPU and there is none, or there is one that torch cannot use.
    """
    wants_gpu = config.device == "cuda" or (config.device == "auto" and _may_take_gpu())
    has_gpu = wants_gpu and _has_gpu(config.name)
    if config.device == "cuda" and not has_gpu:
        raise ConfigError(
            f"encoder {config.name} is set to device cuda, but this host shows no GPU; use auto or cpu"
        )
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    device = "cuda" if has_gpu else "cpu"
    return Placement(
        torch.device(device), _DTYPES[config.precision], config.precision == "int8", config.int8_threshold
    )


def _may_take_gpu() -> bool:
    """Say whether this process may use a GPU: Ray hides none from an actor that reserved none (`num_gpus`)."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return True
    return bool(ray.get_runtime_context().get_accelerator_ids().get("GPU"))


def _has_gpu(name: str) -> bool:
    """Say whether torch can use a GPU.

    `torch.cuda.is_available` says no as well where there is one that does not work. A model would then run on the
    CPU, many times slower, and nobody would know why.
    """
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except AssertionError:
        return False  # this torch is built for the CPU alone
    except RuntimeError as error:
        reason = str(error)
        if "Found no NVIDIA driver" in reason or "No CUDA GPUs are available" in reason:
            return False
        if found := re.search(r"too old \(found version (\d+)\)", reason):
            major, minor = divmod(int(found[1]) // 10, 100)
            reason = (
                f"its driver supports CUDA {major}.{minor}, and torch {torch.__version__} needs CUDA "
                f"{torch.version.cuda}; update the driver, install a torch for CUDA {major}.{minor}"
            )
        raise ConfigError(
            f"encoder {name}: the GPU of this host cannot be used: {reason}, or set device cpu"
        ) from error
    return torch.cuda.device_count() > 0


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
    matching: MatchingHead | None = None
    text_tokens: Callable[[str], int] = lambda _: 0
    """Counts the tokens of a text before it is cut at `context_length`; any thread may call it."""
    context_length: int = 0


Batch = TypeVar("Batch", NDArray[np.uint8], Sequence[str], Sequence[Features])
Output = TypeVar("Output")


class DeviceBatches:
    """Runs a model on batches of at most `size` inputs: fewer where GPU memory does not suffice, later more again."""

    def __init__(self, model: str, sizes: Sequence[int], lost: Callable[[Exception], NoReturn]) -> None:
        """`sizes` are the sizes that batches may have at most, ascending; it begins with the last.

        `lost` is called with an error after which this process can use the device no more.
        """
        self._model, self._sizes, self._lost = model, sizes, lost
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
            except RuntimeError as error:
                if _is_fatal(error):
                    self._lost(error)
                raise
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


def _is_fatal(error: RuntimeError) -> bool:
    """Say whether a process can use CUDA no more after this error, as after a failed assertion in a kernel.

    torch raises AcceleratorError for errors of CUDA itself, and plain ones for those of its libraries. Memory that a
    library or the pinning of pages lacks is none: the next batch may find some.
    """
    if "out of memory" in str(error) or "ALLOC_FAILED" in str(error):
        return False
    return isinstance(error, torch.AcceleratorError) or str(error).startswith("CUDA error")


class TorchEncoder(Encoder):
    """Runs the towers of any family."""

    def __init__(self, config: EncoderConfig, towers: Towers, placement: Placement) -> None:
        """Run one image to learn the dimension, and describe the version."""
        self._preprocessing, self._placement = towers.preprocessing, placement
        self._image, self._text = towers.image, towers.text
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
        if config.compile and placement.device.type == "cuda":
            self._compile()

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
        self._batches = DeviceBatches(self.info.name, self._graph_sizes, self.device_lost)
        self._image = torch.compile(self._image, mode="reduce-overhead", dynamic=False)


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
