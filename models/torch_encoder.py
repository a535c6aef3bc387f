"""An encoder whose towers are torch modules: batches to the device and back."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.types import EncoderInfo
from models.chunks import Batch, Chunks
from models.config import EncoderConfig
from models.cropping import Decoded
from models.encoder import Encoder, Pixels
from models.fingerprint import fingerprint
from models.images import DRAFT_MARGIN
from models.placement import Placement
from models.towers import Towers

_GRAPH_SIZES = (1, 8, 32, 128)
"""Batch sizes that a compiled model is recorded for; others are padded to the next."""
_RUNS_UNTIL_RECORDED = 2
"""torch compiles and runs a new shape eagerly at first, records a CUDA graph of it at the second run, and
only replays from the third on (torch/_inductor/cudagraph_trees.py)."""


class TorchEncoder(Encoder):
    """Runs the towers of any family."""

    def __init__(self, config: EncoderConfig, towers: Towers, placement: Placement) -> None:
        """Run one picture to learn the dimension, and describe the version."""
        target = max(towers.preprocessing.size) if config.draft else None
        super().__init__(_undescribed(config, towers, placement), config.limits, target)
        self._preprocessing, self._placement = towers.preprocessing, placement
        self._image, self._text = towers.image, towers.text
        self._writing = towers.writing
        self._chunks = Chunks(config.name, config.max_batch_size)
        self._caption_chunks = Chunks(config.name, towers.writing.batch_size if towers.writing else 1)
        self._graph_sizes: tuple[int, ...] = ()
        dimension = self.forward(self._sample()[None]).shape[1]
        self.info = replace(
            self.info,
            dimension=dimension,
            fingerprint=_version(config, towers, dimension),
            captions=_caption_version(config, towers),
        )
        if config.compile and placement.device.type == "cuda":
            self._compile()

    def preprocess(self, picture: Decoded) -> Pixels:
        """Resize and crop a picture as the checkpoint was trained."""
        return self._preprocessing.apply(picture.image, (picture.height, picture.width))

    def forward(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run uint8 (n, 3, h, w) through the image tower; float32 (n, dimension), not normalised.

        Raises:
            ModelUnavailable: the device has no memory for even one picture.
        """
        return self._rows(self._run_images, batch)

    def forward_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Run texts through the text tower; float32 (n, dimension), not normalised."""
        if self._text is None:
            return super().forward_texts(texts)
        return self._rows(self._run_texts, texts)

    def write(self, batch: NDArray[np.uint8]) -> list[str]:
        """Describe uint8 (n, 3, h, w) in words, a text a picture.

        Raises:
            ModelUnavailable: the device has no memory for even one picture.
        """
        if self._writing is None:
            return super().write(batch)
        with torch.inference_mode():
            return [text for some in self._caption_chunks.run(self._run_writing, batch) for text in some]

    def warm_up(self) -> None:
        """Run one real input through each tower; a compiled tower records all its batch sizes."""
        super().warm_up()
        for size in self._graph_sizes:
            for _ in range(_RUNS_UNTIL_RECORDED):
                self.forward(np.repeat(self._sample()[None], size, axis=0))

    def _rows(self, run: Callable[[Batch], Tensor], inputs: Batch) -> NDArray[np.float32]:
        # Normalising in less than float32 costs neighbours: cast before anything else happens.
        with torch.inference_mode():
            rows = self._chunks.run(lambda chunk: run(chunk).float().cpu(), inputs)
        return np.asarray(torch.cat(rows).numpy(), dtype=np.float32)

    def _run_images(self, batch: NDArray[np.uint8]) -> Tensor:
        count = len(batch)
        size = next((size for size in self._graph_sizes if size >= count), count)
        if size > count:
            batch = np.concatenate([batch, np.repeat(batch[-1:], size - count, axis=0)])
        return self._image(self._values(batch))[:count]

    def _run_texts(self, texts: Sequence[str]) -> Tensor:
        assert self._text is not None
        return self._text(texts)

    def _run_writing(self, batch: NDArray[np.uint8]) -> list[str]:
        assert self._writing is not None
        return self._writing.write(self._values(batch))

    def _values(self, batch: NDArray[np.uint8]) -> Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(batch))
        if self._placement.device.type == "cuda":
            pixels = pixels.pin_memory().to(self._placement.device, non_blocking=True)
        return self._preprocessing.normalise(pixels, self._placement.dtype)

    def _compile(self) -> None:
        self._graph_sizes = tuple(
            sorted({*(s for s in _GRAPH_SIZES if s < self._chunks.size), self._chunks.size})
        )
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
        towers.files, _facts(config, towers) | {"pooling": towers.pooling, "dimension": dimension}
    )


def _caption_version(config: EncoderConfig, towers: Towers) -> str | None:
    if towers.writing is None or config.captions is None:
        return None
    settings = config.captions.model_dump(exclude={"max_batch_size"})
    return fingerprint(towers.writing.files, _facts(config, towers) | {"captions": settings})


def _facts(config: EncoderConfig, towers: Towers) -> dict[str, object]:
    return {
        "family": config.family,
        "architecture": towers.architecture,
        "revision": config.revision,
        "precision": config.precision,
        "int8_threshold": config.int8_threshold,
        "preprocessing": towers.preprocessing.facts(),
        "draft": f"exact, {DRAFT_MARGIN} x" if config.draft else None,
    }
