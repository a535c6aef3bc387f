"""An encoder whose towers are torch modules: batches to the device and back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from core.errors import ModelUnavailable
from core.types import EncoderInfo
from models.config import EncoderConfig
from models.encoder import Encoder, Pixels
from models.fingerprint import fingerprint
from models.placement import Placement
from models.preprocessing import Preprocessing

Batch = TypeVar("Batch", NDArray[np.uint8], Sequence[str])
_GRAPH_SIZES = (1, 8, 32, 128)
"""Batch sizes that a compiled model is recorded for; others are padded to the next."""


@dataclass(frozen=True, slots=True)
class Towers:
    """A loaded checkpoint, ready to run.

    `image` takes the model's values (n, 3, h, w) on the device; `text` takes words. Both give (n, dimension)
    there. `files` are what the vectors depend on, `architecture` and `pooling` how they are used.
    """

    image: Callable[[Tensor], Tensor]
    text: Callable[[Sequence[str]], Tensor] | None
    preprocessing: Preprocessing
    files: tuple[Path, ...]
    architecture: str
    pooling: str


class TorchEncoder(Encoder):
    """Runs the towers of any family."""

    def __init__(self, config: EncoderConfig, towers: Towers, placement: Placement) -> None:
        """Run one picture to learn the dimension, and describe the version."""
        target = max(towers.preprocessing.size) if config.draft else None
        super().__init__(_undescribed(config, towers, placement), config.limits, target)
        self._preprocessing, self._placement = towers.preprocessing, placement
        self._image, self._text = towers.image, towers.text
        self._chunk = config.max_batch_size
        self._graph_sizes: tuple[int, ...] = ()
        dimension = self.forward(self._sample()[None]).shape[1]
        self.info = replace(self.info, dimension=dimension, fingerprint=_version(config, towers, dimension))
        if config.compile and placement.device.type == "cuda":
            self._compile()

    def preprocess(self, image: Image.Image) -> Pixels:
        """Resize and crop an RGB image as the checkpoint was trained."""
        return self._preprocessing.apply(image)

    def forward(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run uint8 (n, 3, h, w) through the image tower; float32 (n, dimension), not normalised.

        Raises:
            ModelUnavailable: the device has no memory for even one picture.
        """
        return self._in_chunks(self._run_images, batch)

    def forward_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Run texts through the text tower; float32 (n, dimension), not normalised."""
        if self._text is None:
            return super().forward_texts(texts)
        return self._in_chunks(self._run_texts, texts)

    def warm_up(self) -> None:
        """Run one real input through each tower; a compiled tower records all its batch sizes."""
        super().warm_up()
        for size in self._graph_sizes:
            self.forward(np.repeat(self._sample()[None], size, axis=0))

    def _in_chunks(self, run: Callable[[Batch], Tensor], inputs: Batch) -> NDArray[np.float32]:
        """Run at most `_chunk` inputs at a time; half as many once GPU memory did not suffice."""
        rows: list[Tensor] = []
        start = 0
        while start < len(inputs):
            chunk = inputs[start : start + self._chunk]
            try:
                # Normalising in less than float32 costs neighbours: cast before anything else happens.
                with torch.inference_mode():
                    rows.append(run(chunk).float().cpu())
            except torch.OutOfMemoryError as error:
                if len(chunk) == 1:
                    raise ModelUnavailable(
                        f"{self.info.name} has not enough GPU memory for one input"
                    ) from error
                self._chunk = len(chunk) // 2
                torch.cuda.empty_cache()
                continue
            start += len(chunk)
        return np.asarray(torch.cat(rows).numpy(), dtype=np.float32)

    def _run_images(self, batch: NDArray[np.uint8]) -> Tensor:
        count = len(batch)
        size = next((size for size in self._graph_sizes if size >= count), count)
        if size > count:
            batch = np.concatenate([batch, np.repeat(batch[-1:], size - count, axis=0)])
        pixels = torch.from_numpy(np.ascontiguousarray(batch))
        if self._placement.device.type == "cuda":
            pixels = pixels.pin_memory().to(self._placement.device, non_blocking=True)
        return self._image(self._preprocessing.normalise(pixels, self._placement.dtype))[:count]

    def _run_texts(self, texts: Sequence[str]) -> Tensor:
        assert self._text is not None
        return self._text(texts)

    def _compile(self) -> None:
        self._graph_sizes = tuple(sorted({*(s for s in _GRAPH_SIZES if s < self._chunk), self._chunk}))
        self._image = torch.compile(self._image, mode="reduce-overhead", dynamic=False)


def _undescribed(config: EncoderConfig, towers: Towers, placement: Placement) -> EncoderInfo:
    return EncoderInfo(
        name=config.name,
        family=config.family,
        checkpoint=f"{config.checkpoint}:{config.pretrained}" if config.pretrained else config.checkpoint,
        fingerprint="",
        dimension=0,
        modalities=("image", "text") if towers.text else ("image",),
        precision=config.precision,
        device=placement.device.type,
    )


def _version(config: EncoderConfig, towers: Towers, dimension: int) -> str:
    return fingerprint(
        towers.files,
        {
            "family": config.family,
            "architecture": towers.architecture,
            "revision": config.revision,
            "precision": config.precision,
            "int8_threshold": config.int8_threshold,
            "pooling": towers.pooling,
            "preprocessing": towers.preprocessing.facts(),
            "draft": config.draft,
            "dimension": dimension,
        },
    )
