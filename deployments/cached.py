"""Asking a model once for inputs that are the same: those that it has seen, and those that wait together."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from core.errors import VitrineError
from core.types import EncoderInfo, EncoderInput, Vector
from deployments.metrics import CACHE_HITS, CACHE_MISSES
from models.cache import EmbeddingCache, content_key

Answer = Vector | VitrineError
Embed = Callable[[EncoderInput], Awaitable[Answer]]


@dataclass(slots=True)
class _Running:
    """One input that is being embedded, and how many wait for it."""

    work: asyncio.Future[Answer]
    waiting: int = 0


class CachedEmbeddings:
    """Embeddings of one model version, from the cache where it holds them; errors are never kept."""

    def __init__(self, info: EncoderInfo, max_bytes: int, embed: Embed) -> None:
        self._fingerprint = info.fingerprint
        self._cache = EmbeddingCache(max_bytes, info.dimension)
        self._embed = embed
        self._running: dict[bytes, _Running] = {}
        self._model = info.name

    async def embed(self, item: EncoderInput) -> Answer:
        """Return what the model answers, or has answered to the same content before."""
        if isinstance(item, str):
            key = content_key(self._fingerprint, item)
        else:
            key = await asyncio.to_thread(content_key, self._fingerprint, item)
        held = self._cache.get(key)
        if held is not None:
            CACHE_HITS.add(model=self._model)
            return held
        if key in self._running:
            CACHE_HITS.add(model=self._model)
        else:
            CACHE_MISSES.add(model=self._model)
            self._running[key] = self._start(key, item)
        return await self._wait(key, self._running[key])

    def _start(self, key: bytes, item: EncoderInput) -> _Running:
        work = asyncio.ensure_future(self._embed(item))
        work.add_done_callback(partial(self._finish, key))
        return _Running(work)

    async def _wait(self, key: bytes, running: _Running) -> Answer:
        running.waiting += 1
        try:
            # A caller that goes away must not take the answer from the others.
            return await asyncio.shield(running.work)
        finally:
            running.waiting -= 1
            if not running.waiting and not running.work.done():
                # At once, so that nobody joins what is cancelled.
                del self._running[key]
                running.work.cancel()

    def _finish(self, key: bytes, done: asyncio.Future[Answer]) -> None:
        if key in self._running and self._running[key].work is done:
            del self._running[key]
        if done.cancelled() or done.exception() is not None:
            return
        answer = done.result()
        if not isinstance(answer, VitrineError):
            self._cache.put(key, answer)
