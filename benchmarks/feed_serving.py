"""What the process of a replica spends on an image, and how busy it keeps a model.

Run it by `python -m benchmarks.feed_serving`.

The model only waits, as long as a GPU would take. So no GPU is needed, and two cores are enough. The replica runs
in a process of its own, without Serve.
"""

import argparse
import asyncio
import gc
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.bare import median, write_checkpoint
from benchmarks.images import FromMemory, product_jpegs
from benchmarks.overhead import SMALL
from benchmarks.served import encoder_settings
from core.errors import VitrineError
from core.types import Vector
from deployments.replicas import encoder as replicas
from deployments.replicas.encoder import EncoderReplica
from models.config import EncoderConfig
from models.encoder import Encoder, Pixels, load_encoder, unit_vectors

BATCH = 64
BATCH_S = 0.005
"""Seconds of the forward pass of a full batch: 12,800 images a second, as of a small model on a large GPU."""
REQUEST = 16
"""Images of a request."""
CALLERS = 16
PROCESSES = 2
ROUNDS = 5


class Waiting:
    """A GPU that only waits. It does its batches one after the other, without this process, and counts its time."""

    def __init__(self, encoder: Encoder) -> None:
        row = np.random.default_rng(0).standard_normal(encoder.info.dimension)
        self._rows = np.tile(row, (BATCH, 1)).astype(np.float32)
        self._gather = encoder.gather
        self._free_at = self.busy_s = 0.0
        self.batches: list[int] = []

    def start_images(self, images: Sequence[Pixels] | Pixels) -> Callable[[], list[Vector | VitrineError]]:
        """Give the GPU a batch; what this returns waits until it has done all that it got so far."""
        count = len(images if isinstance(images, np.ndarray) else self._gather(images))
        needs_s = BATCH_S * count / BATCH
        ready_at = self._free_at = max(time.perf_counter(), self._free_at) + needs_s
        self.busy_s += needs_s
        self.batches.append(count)

        def wait() -> list[Vector | VitrineError]:
            time.sleep(max(0.0, ready_at - time.perf_counter()))
            return unit_vectors(self._rows[:count])

        return wait


def figures(images: int = 1920, rounds: int = ROUNDS) -> dict[str, float]:
    """Measure a replica; the median of the rounds.

    `serving_ms_an_image` is processor time of the replica's process, which leaves computing to the GPU, from JPEG
    files that two processes decode. `serving_busy` is the share of the time in which the model has work, where pixels
    come from memory.
    """
    with (
        tempfile.TemporaryDirectory(prefix="vitrine-") as folder,
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process,
    ):
        settings = encoder_settings(write_checkpoint(Path(folder) / "checkpoint", **SMALL), threads=1)
        settings |= {"max_batch_size": BATCH, "decode_processes": PROCESSES}
        files = process.submit(from_files, settings, images, rounds).result()
        memory = process.submit(from_memory, settings, images * 4, rounds).result()
    return {
        "serving_ms_an_image": median([each["ms"] for each in files]),
        "serving_files_images_per_s": median([each["images_per_s"] for each in files]),
        "serving_busy": median([each["busy"] for each in memory]),
        "serving_memory_images_per_s": median([each["images_per_s"] for each in memory]),
        "serving_memory_images_a_batch": median([each["images_a_batch"] for each in memory]),
        "serving_memory_ms_an_image": median([each["ms"] for each in memory]),
    }


def from_files(settings: dict[str, Any], images: int, rounds: int) -> list[dict[str, float]]:
    """Embed JPEG files, no two alike; returns the figures of each round."""
    base = product_jpegs(64)
    return asyncio.run(_measured(settings, [base[n % len(base)] for n in range(images)], rounds))


def from_memory(settings: dict[str, Any], images: int, rounds: int) -> list[dict[str, float]]:
    """Embed images whose pixels the decoder has in memory; returns the figures of each round."""

    def ready(encoder: Encoder) -> FromMemory:
        return FromMemory(encoder._sample())

    with patch.object(Encoder, "decoder", ready):
        return asyncio.run(_measured(settings, [b""] * images, rounds))


async def _measured(settings: dict[str, Any], images: Sequence[bytes], rounds: int) -> list[dict[str, float]]:
    with _waiting() as models:
        replica = EncoderReplica(EncoderConfig(**settings))
    # As Serve does when a replica has started: a full collection takes 0.3 s with the libraries of a model.
    gc.collect()
    gc.freeze()
    await _call(replica, [each + b"%d" % n for n, each in enumerate(images[: BATCH * CALLERS])])
    measured = [await _round(replica, models[0], images, number) for number in range(rounds)]
    # Else libraries complain at the end of what they take for leaks.
    gc.unfreeze()
    return measured


async def _round(
    replica: EncoderReplica, model: Waiting, images: Sequence[bytes], number: int
) -> dict[str, float]:
    # A mark after the end of a file makes it another one than any before.
    images = [each + b" %d %d" % (number, place) for place, each in enumerate(images)]
    model.busy_s = 0.0
    model.batches.clear()
    began, used = time.perf_counter(), time.process_time()
    await _call(replica, images)
    took_s, used_s = time.perf_counter() - began, time.process_time() - used
    return {
        "ms": used_s / len(images) * 1e3,
        "busy": model.busy_s / took_s,
        "images_per_s": len(images) / took_s,
        "images_a_batch": len(images) / len(model.batches),
    }


@contextmanager
def _waiting() -> Iterator[list[Waiting]]:
    """Have models that a replica loads only wait."""
    models: list[Waiting] = []

    def load(config: EncoderConfig) -> Encoder:
        encoder = load_encoder(config)
        models.append(Waiting(encoder))
        # As on a GPU: another thread waits for the vectors.
        encoder.runs_ahead = True
        encoder.start_images = models[-1].start_images  # type: ignore[method-assign]
        return encoder

    with patch.object(replicas, "load_encoder", load):
        yield models


async def _call(replica: EncoderReplica, images: Sequence[bytes]) -> None:
    starts = iter(range(0, len(images), REQUEST))

    async def caller() -> None:
        for start in starts:
            encoded = await replica.encode(images[start : start + REQUEST])
            assert all(isinstance(each, np.ndarray) for each in encoded.vectors)

    await asyncio.gather(*(caller() for _ in range(CALLERS)))


def main() -> None:
    """Measure, and print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1920, help="images of each round (default: 1920)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"rounds (default: {ROUNDS})")
    options = parser.parse_args()
    found = figures(options.images, options.rounds)
    for name, value in found.items():
        print(f"{name:32} {value:10.3f}")
    print(json.dumps({name: round(value, 4) for name, value in found.items()}))


if __name__ == "__main__":
    main()
