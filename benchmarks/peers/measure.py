"""One window of load on a server, measured in the client's process, and the memory of a server's processes."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
import psutil
from numpy.typing import NDArray

from benchmarks.load import Response, answers, rate
from benchmarks.peers.images import embedding_requests, numbers_of

LEAST_COSINE = 0.999
"""Least cosine of an answer to what the bare model makes of the same image."""


@dataclass(frozen=True, slots=True)
class Mode:
    """So many callers, each with so many images a request."""

    callers: int
    batch: int

    @property
    def name(self) -> str:
        """Return the name in tables and keys."""
        return f"{self.callers}x{self.batch}"


@dataclass(frozen=True, slots=True)
class Target:
    """A server: the id of its first process, and where and by which name it embeds."""

    pid: int
    port: int
    path: str
    model: str


@dataclass(frozen=True, slots=True)
class Window:
    """What a window of load has shown.

    `cpu_ms` is processor time an image in all processes of the server. `others` are the cores that other work
    of the machine took meanwhile.
    """

    images_per_s: float
    cpu_ms: float
    p50_ms: float
    cosine: float
    others: float


class Meter:
    """Processor time of a tree of processes and of all others, while the block runs."""

    def __init__(self, pid: int | None = None) -> None:
        """Without `pid` there is only this process and the others."""
        self._pid = pid
        self.server_s = self.others = 0.0

    def __enter__(self) -> Self:
        self._before = self._times()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        moment, busy, own, server = (
            after - before for after, before in zip(self._times(), self._before, strict=True)
        )
        self.server_s, self.others = server, max(busy - own - server, 0.0) / moment

    def _times(self) -> tuple[float, float, float, float]:
        machine = psutil.cpu_times()
        busy = sum(machine) - machine.idle - machine.iowait - machine.guest - machine.guest_nice
        server = 0.0 if self._pid is None else sum(map(_cpu_s, family(self._pid)))
        return time.perf_counter(), busy, time.process_time(), server


def family(pid: int) -> list[psutil.Process]:
    """Return a process and all its descendants."""
    first = psutil.Process(pid)
    return [first, *first.children(recursive=True)]


def _cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def memory_mib(pid: int) -> list[tuple[str, float]]:
    """Return the title and the memory of each process, shared memory divided among them (PSS)."""
    found = []
    for process in family(pid):
        try:
            title, used = " ".join(process.cmdline()), process.memory_full_info().pss
        except psutil.Error:
            continue
        found.append((title, used / 2**20))
    return found


def window(
    target: Target, mode: Mode, images: Sequence[bytes], expected: NDArray[np.float32], seconds: float
) -> Window:
    """Keep the callers busy for some seconds, and check each answer when they have ended.

    Raises:
        RuntimeError: an answer was wrong.
    """
    requests = embedding_requests(target.path, target.model, images, mode.batch)
    meter = Meter(target.pid)
    found = asyncio.run(answers(target.port, requests, mode.callers, seconds, meter))
    if len(found) < 2:
        raise RuntimeError(f"{len(found)} answers within {seconds:g} s are too few to measure")
    return Window(
        images_per_s=rate(found) * mode.batch,
        cpu_ms=meter.server_s * 1e3 / (len(found) * mode.batch),
        p50_ms=float(np.median([answer.seconds for answer in found])) * 1e3,
        cosine=min(check(answer, mode.batch, expected) for answer in found),
        others=meter.others,
    )


def check(answer: Response, batch: int, expected: NDArray[np.float32]) -> float:
    """Return the least cosine of an answer's vectors to those of the bare model.

    A tower with random weights gives all images similar vectors. So each vector must also be nearer to that of
    its own image than to that of any other.

    Raises:
        RuntimeError: the answer is wrong.
    """
    data = sorted(json.loads(answer.body)["data"], key=lambda item: int(item["index"]))
    vectors = np.array([item["embedding"] for item in data], np.float32)
    numbers = numbers_of(answer.number, batch)
    if vectors.shape != (batch, expected.shape[1]):
        raise RuntimeError(f"request {answer.number} was answered by vectors of shape {vectors.shape}")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors @ expected.T
    least = float(cosines[np.arange(batch), numbers].min())
    if least < LEAST_COSINE or (cosines.argmax(axis=1) != numbers).any():
        raise RuntimeError(f"request {answer.number} was answered by other vectors; least cosine {least:.5f}")
    return least
