"""Throughput of the service against the bare model, in turns, so that a noisy machine harms both alike."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bare import BareModel, median, write_checkpoint
from benchmarks.load import multipart_requests, throughput
from benchmarks.pictures import small_jpegs
from benchmarks.service import MODEL, serving

CONNECTIONS = 96
ROUND_S = 4.0


@dataclass(frozen=True, slots=True)
class Served:
    """Images per second of both, and the median of their ratio over the rounds.

    `batches` are the batch sizes of the bare model by its number of threads; each of its rounds tries both
    and counts the better, for on a shared machine which one that is changes from second to second.
    """

    batches: dict[int, int]
    bare: tuple[float, ...]
    served: tuple[float, ...]
    ratio: float


def served_over_bare(scratch: Path, rounds: int, **settings: Any) -> Served:
    """Measure in rounds of bare, served, bare; `settings` are those of the encoder."""
    checkpoint = write_checkpoint(scratch / "checkpoint")
    model = BareModel(checkpoint)
    batches = model.best_batches(seconds=1)
    pictures = small_jpegs(64)
    bare, served = [model.fastest(batches, ROUND_S / 2)], list[float]()
    with serving(scratch / "home", encoder_settings(checkpoint, **settings), pictures[0]) as (_, port):
        requests = multipart_requests(f"/v1/embed/{MODEL}", pictures)
        for _ in range(rounds):
            served.append(asyncio.run(throughput(port, requests, CONNECTIONS, ROUND_S)))
            bare.append(model.fastest(batches, ROUND_S / 2))
    return Served(batches, tuple(bare), tuple(served), median(_ratios(bare, served)))


def encoder_settings(checkpoint: Path, **settings: Any) -> dict[str, Any]:
    """The encoder as the benchmarks configure it, with `settings` on top."""
    return {
        "name": MODEL,
        "family": "openclip",
        "checkpoint": str(checkpoint),
        "precision": "bf16",
        "device": "cpu",
        "threads": 1,
        **settings,
    }


def _ratios(bare: Sequence[float], served: Sequence[float]) -> list[float]:
    """Each served round against the mean of the bare ones before and after it."""
    return [
        each / ((before + after) / 2) for each, before, after in zip(served, bare, bare[1:], strict=False)
    ]
