"""Throughput of the service against the bare model, in turns, so that a noisy machine harms both alike."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bare import BareModel, ServedPrecision, median, write_checkpoint
from benchmarks.images import small_jpegs
from benchmarks.load import multipart_requests, throughput
from benchmarks.service import MODEL, serving

CONNECTIONS = 96
ROUND_S = 4.0


@dataclass(frozen=True, slots=True)
class Served:
    """Images per second of both in one precision, and the median of their ratio over the rounds.

    `batches` are the batch sizes of the bare model by its number of threads; each of its rounds tries both
    and counts the better, for on a shared machine which one that is changes from second to second.
    """

    precision: ServedPrecision
    batches: dict[int, int]
    bare: tuple[float, ...]
    served: tuple[float, ...]
    ratio: float


def served_over_bare(scratch: Path, rounds: int, precision: ServedPrecision) -> Served:
    """Measure in rounds of bare, served, bare; the service has the threads with which bare was the faster."""
    checkpoint = write_checkpoint(scratch / "checkpoint")
    model = BareModel(checkpoint, precision)
    batches = model.best_batches(seconds=1)
    threads = max(batches, key=lambda each: model.images_per_s(batches[each], each, seconds=2))
    settings = encoder_settings(checkpoint, precision=precision, threads=threads)
    images = small_jpegs(64)
    bare, served = [model.fastest(batches, ROUND_S / 2)], list[float]()
    with serving(scratch / "home", settings, images[0]) as (_, port):
        requests = multipart_requests(f"/v1/embed/{MODEL}", images)
        for _ in range(rounds):
            served.append(asyncio.run(throughput(port, requests, CONNECTIONS, ROUND_S)))
            bare.append(model.fastest(batches, ROUND_S / 2))
    return Served(precision, batches, tuple(bare), tuple(served), median(_ratios(bare, served)))


def encoder_settings(checkpoint: Path, **settings: Any) -> dict[str, Any]:
    """Return the encoder's configuration for the benchmarks, updated with `settings`."""
    return {
        "name": MODEL,
        "family": "openclip",
        "checkpoint": str(checkpoint),
        "device": "cpu",
        **settings,
    }


def _ratios(bare: Sequence[float], served: Sequence[float]) -> list[float]:
    """Each served round against the mean of the bare ones before and after it."""
    return [
        each / ((before + after) / 2) for each, before, after in zip(served, bare, bare[1:], strict=False)
    ]
