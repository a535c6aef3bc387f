"""Cache of the most recently used embeddings of one model version, bounded by bytes."""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np

from core.errors import VitrineError
from core.types import Cropped, EncoderInfo, EncoderInput, Vector
from deployments.observability.metrics import CACHE_HITS, CACHE_MISSES


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

    def put(self, key: bytes, vector: Vector) -> None:
        """Store a vector; the least recently used one makes room."""
        if not len(self._rows):
            return
        slot = self._slots.pop(key, None)
        if slot is None:
            full = len(self._slots) == len(self._rows)
            slot = self._slots.popitem(last=False)[1] if full else len(self._slots)
        self._slots[key] = slot
        self._rows[slot] = vector


Answer = Vector | VitrineError
Embed = Callable[[EncoderInput], Awaitable[Answer]]


@dataclass(slots=True)
class _Running:
    """One input that is being embedded, and the number of callers that wait for it."""

    work: asyncio.Future[Answer]
    waiting: int = 0


class CachedEmbeddings:
    """Embeddings of one model version, from the cache where it holds them. Errors are never cached."""

    def __init__(self, info: EncoderInfo, max_bytes: int, embed: Embed) -> None:
        self._fingerprint = info.fingerprint
        self._cache = EmbeddingCache(max_bytes, info.dimension)
        self._embed = embed
        self._running: dict[bytes, _Running] = {}
        self._model = info.name

    async def embed(self, item: EncoderInput) -> Answer:
        """Return the model's answer, or its earlier one to the same content."""
        if isinstance(item, str):
            key = content_key(self._fingerprint, item)
        else:
            key = await asyncio.to_thread(content_key, self._fingerprint, item)
        if (held := self._cache.get(key)) is not None:
            CACHE_HITS.add(model=self._model)
            return held
        if key in self._running:
            CACHE_HITS.add(model=self._model)
        else:
            CACHE_MISSES.add(model=self._model)
            self._running[key] = _Running(asyncio.ensure_future(self._embed_and_keep(key, item)))
        running = self._running[key]
        running.waiting += 1
        try:
            # A caller that goes away must not cancel the work for the others.
            return await asyncio.shield(running.work)
        finally:
            running.waiting -= 1
            if not running.waiting:
                # Removed first, so that no new caller joins canceled work.
                del self._running[key]
                running.work.cancel()

    async def _embed_and_keep(self, key: bytes, item: EncoderInput) -> Answer:
        answer = await self._embed(item)
        if not isinstance(answer, VitrineError):
            self._cache.put(key, answer)
        return answer
