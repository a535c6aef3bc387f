"""Cache of the most recently used embeddings of one model version, bounded by bytes."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from core.errors import VitrineError
from core.types import Cropped, EncoderInfo, EncoderInput, Vector
from deployments.observability.metrics import CACHE_HITS, CACHE_MISSES
from deployments.replicas.batching import Answers, Work


def content_key(fingerprint: str, item: EncoderInput) -> bytes:
    """Hash a model version and an input to 32 bytes, equal only for the same version and content."""
    kind, content = _content(item)
    digest = hashlib.sha256(f"{fingerprint} {kind} ".encode())
    digest.update(content)
    return digest.digest()


def _content(item: EncoderInput) -> tuple[str, bytes]:
    if isinstance(item, str):
        return "text", item.encode()
    if isinstance(item, Cropped):
        return f"image {item.box!r}", item.data
    return "image", item


class EmbeddingCache:
    """The most recently used vectors of one model version. Not thread-safe.

    Its memory is one block that is written at construction, so a replica does not grow as its cache fills. Keys
    take some 200 bytes more per vector.
    """

    def __init__(self, max_bytes: int, dimension: int) -> None:
        """Allocate room for as many float32 vectors as fit into `max_bytes`; with room for none it stays empty."""
        slots = max_bytes // (dimension * np.dtype(np.float32).itemsize)
        self._rows = np.full((slots, dimension), np.nan, np.float32)
        self._slots: OrderedDict[bytes, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._slots)

    def get(self, key: bytes) -> Vector | None:
        """Return a copy of the float32 vector of shape (dimension,), or None when it is not held."""
        slot = self._slots.get(key)
        if slot is None:
            return None
        self._slots.move_to_end(key)
        held: Vector = self._rows[slot].copy()
        return held

    def put(self, vectors: Mapping[bytes, Vector]) -> None:
        """Store vectors by their keys; the least recently used ones make room."""
        if not len(self._rows) or not vectors:
            return
        written: dict[int, Vector] = {}
        for key, vector in vectors.items():
            slot = self._slots.pop(key, None)
            if slot is None:
                full = len(self._slots) == len(self._rows)
                slot = self._slots.popitem(last=False)[1] if full else len(self._slots)
            self._slots[key] = slot
            # Of two vectors in one slot the last stays, which numpy does not promise.
            written[slot] = vector
        # At once: numpy lets other threads run meanwhile, and each time this one would wait for its turn.
        self._rows[list(written)] = list(written.values())


Answer = Vector | VitrineError


class SharedWorks:
    """Embeddings of one model version: those in the cache, and the work under way. Errors are never cached.

    Content that is embedded already is joined, so it reaches the model once. Any thread may call this.
    """

    def __init__(self, info: EncoderInfo, max_bytes: int) -> None:
        """With no bytes nothing is kept and nothing is joined."""
        self._fingerprint, self._model = info.fingerprint, info.name
        self._cache = EmbeddingCache(max_bytes, info.dimension) if max_bytes else None
        self._running: dict[bytes, Work[Any, Answer]] = {}
        self._lock = threading.Lock()

    def claim(
        self, item: EncoderInput, answers: Answers[Answer], place: int
    ) -> Vector | Work[Any, Answer] | None:
        """Return the vector that is held, or new work that the caller must do, with the input as its item.

        None means that nothing is to be done: other work will answer, or the caller has gone.
        """
        key = None if self._cache is None else content_key(self._fingerprint, item)
        with self._lock:
            if not answers.is_wanted:
                return None
            if key is not None and self._cache is not None:
                if (held := self._cache.get(key)) is not None:
                    return held
                if (running := self._running.get(key)) is not None:
                    running.waiters.append((answers, place))
                    answers.works.append(running)
                    return None
            work: Work[Any, Answer] = Work(item, [(answers, place)], key)
            answers.works.append(work)
            if key is not None:
                self._running[key] = work
            return work

    def settle(self, works: Sequence[Work[Any, Answer]], answers: Sequence[Answer]) -> None:
        """Keep the answer to each work, and give it to all who wait; in the event loop."""
        with self._lock:
            kept: dict[bytes, Vector] = {}
            for work, answer in zip(works, answers, strict=True):
                self._end(work)
                if work.key is not None and not isinstance(answer, VitrineError):
                    kept[work.key] = answer
            if self._cache is not None:
                self._cache.put(kept)
        for work, answer in zip(works, answers, strict=True):
            work.answer(answer)

    def leave(self, answers: Answers[Any]) -> None:
        """Give up what nobody else waits for."""
        with self._lock:
            answers.is_wanted = False
            for work in answers.works:
                work.waiters[:] = [each for each in work.waiters if each[0] is not answers]
                if not work.waiters:
                    # So that no new caller joins work that nobody does.
                    self._end(work)
                    work.let_go()

    def count(self, hits: int, misses: int) -> None:
        """Record inputs that were answered without the model, and those that were not, where a cache is used."""
        if self._cache is None:
            return
        CACHE_HITS.add(hits, model=self._model)
        CACHE_MISSES.add(misses, model=self._model)

    def _end(self, work: Work[Any, Answer]) -> None:
        if work.key is not None and self._running.get(work.key) is work:
            del self._running[work.key]
