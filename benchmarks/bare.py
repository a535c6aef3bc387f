"""ViT-B-32 with random weights in open_clip's own format, and the model alone in a loop."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import open_clip
import torch
from safetensors.torch import save_file

ARCHITECTURE = "ViT-B-32"
BATCHES = (8, 16, 32, 64)
THREADS = (1, 2)
ServedPrecision = Literal["fp32", "bf16"]
_PRECISIONS = {"fp32": ("fp32", torch.float32), "bf16": ("pure_bf16", torch.bfloat16)}
"""By our name of a precision: that of open_clip, and the dtype of what goes in."""


def write_checkpoint(directory: Path, **changes: Mapping[str, Any]) -> Path:
    """Write the architecture with random weights to a directory that `openclip` loads.

    `changes` update its `vision_cfg` and `text_cfg`.
    """
    torch.manual_seed(0)
    architecture = open_clip.get_model_config(ARCHITECTURE)
    for tower, change in changes.items():
        architecture[tower] |= change
    model = open_clip.CLIP(**architecture)
    settings = {
        "model_cfg": architecture,
        "preprocess_cfg": {
            "mean": open_clip.OPENAI_DATASET_MEAN,
            "std": open_clip.OPENAI_DATASET_STD,
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }
    directory.mkdir(parents=True)
    (directory / "open_clip_config.json").write_text(json.dumps(settings), encoding="utf-8")
    save_file(model.state_dict(), directory / "open_clip_model.safetensors")
    return directory


class BareModel:
    """The image tower, nothing around it: tensors go in that were made before."""

    def __init__(self, directory: Path, precision: ServedPrecision) -> None:
        own, self._dtype = _PRECISIONS[precision]
        self._model = open_clip.create_model(f"local-dir:{directory}", precision=own).eval()

    def best_batches(self, seconds: float) -> dict[int, int]:
        """Try every batch size for some seconds; returns the fastest for each number of CPU threads."""
        return {
            threads: max(BATCHES, key=lambda batch: self.images_per_s(batch, threads, seconds))
            for threads in THREADS
        }

    def fastest(self, batches: Mapping[int, int], seconds: float) -> float:
        """Images per second of the better number of threads, each with its batch size, for half the time."""
        return max(self.images_per_s(batch, threads, seconds / 2) for threads, batch in batches.items())

    def images_per_s(self, batch: int, threads: int, seconds: float) -> float:
        """Run batch after batch for at least so many seconds."""
        torch.set_num_threads(threads)
        pixels = torch.rand(batch, 3, 224, 224).to(self._dtype)
        with torch.inference_mode():
            self._model.encode_image(pixels)
            runs, start = 0, time.perf_counter()
            while (elapsed := time.perf_counter() - start) < seconds:
                self._model.encode_image(pixels)
                runs += 1
        return batch * runs / elapsed


def median(values: Sequence[float]) -> float:
    """Return the median, for figures of a noisy machine."""
    return float(torch.tensor(values, dtype=torch.float64).quantile(0.5))
