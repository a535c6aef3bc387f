"""Picture files copied from one content-addressed store to another: only what the other does not have."""

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Literal

from catalog.blobs import FsspecBlobs
from core.errors import NotFound
from core.portions import MAX_READ_BYTES
from core.semaphores import WeightedSemaphore

_AT_ONCE = 16
_PREFIX_DIGITS = 2
_reading = WeightedSemaphore()
Outcome = Literal["copied", "present", "missing", "damaged"]


@dataclass(slots=True)
class Copied:
    """What became of the files: how many were there already, how many came, and which cannot be had."""

    present: int = 0
    copied: int = 0
    copied_bytes: int = 0
    missing: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether the other store has every file now."""
        return not (self.missing or self.damaged)

    def count(self, sha256: str, outcome: Outcome, size: int) -> None:
        """Note one file."""
        if outcome == "copied":
            self.copied += 1
            self.copied_bytes += size
        elif outcome == "present":
            self.present += 1
        else:
            (self.missing if outcome == "missing" else self.damaged).append(sha256)


def copy_files(source: FsspecBlobs, target: FsspecBlobs, sha256s: Iterable[str], copied: Copied) -> None:
    """Copy files by their names, which come in order; each is held against its name before it is written.

    A damaged file is not copied, so what an earlier copy has kept of it stays.

    Raises:
        Unavailable: one of the stores does not answer.
    """
    with ThreadPoolExecutor(_AT_ONCE, "copy") as pool:
        # A portion at a time: two listings answer for 1 of 256 files, and memory stays small.
        for prefix, names in groupby(sha256s, key=lambda name: name[:_PREFIX_DIGITS]):
            there, here = source.sizes(prefix), target.sizes(prefix)
            for sha256, outcome, size in pool.map(partial(_copy, source, target, there, here), _once(names)):
                copied.count(sha256, outcome, size)


def _copy(
    source: FsspecBlobs, target: FsspecBlobs, there: dict[str, int], here: dict[str, int], sha256: str
) -> tuple[str, Outcome, int]:
    size = here.get(sha256)
    if size is not None and there.get(sha256, size) == size:
        return sha256, "present", size
    with _reading.holding(there.get(sha256, 0), MAX_READ_BYTES):
        try:
            data = source.get(sha256)
        except NotFound:
            return sha256, "missing", 0
        if hashlib.sha256(data).hexdigest() != sha256:
            return sha256, "present" if size is not None else "damaged", len(data)
        target.put(data)
        return sha256, "copied", len(data)


def _once(names: Iterable[str]) -> Iterator[str]:
    return (name for name, _ in groupby(names))
