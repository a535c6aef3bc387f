"""What one actor of a bulk build does: it holds the model and completes one range of ids after another."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from catalog.config import CatalogConfig
from catalog.opening import open_catalog
from core.errors import ConfigError, Unavailable
from core.indexing import Indexer, IndexState
from core.types import EncoderInfo, IndexItem
from milvus.config import MilvusConfig
from milvus.store import MilvusStore
from models.config import EncoderConfig
from models.encoder import Encoder
from models.local import LocalEncoder

_READ_BATCHES = 16
"""Batches that one read of the ledger brings."""
_THREADS = 64
"""Calls that may wait for files, the database and Milvus at once."""

Load = Callable[[EncoderConfig], Encoder]


@dataclass(frozen=True, slots=True)
class ShardWork:
    """What every actor of a build is told."""

    catalog: CatalogConfig
    milvus: MilvusConfig
    encoder: EncoderConfig
    info: EncoderInfo
    batch_size: int
    batches_in_flight: int
    load: Load


class ShardIndexer:
    """Decodes in threads, encodes in one, and writes meanwhile: several batches are under way at once.

    Calls may overlap, so that the last batches of one range go along with the first of the next.
    """

    def __init__(self, work: ShardWork) -> None:
        """Load the model.

        Raises:
            ConfigError: it is another version than the build is for.
        """
        encoder = work.load(work.encoder)
        if encoder.info.collection != work.info.collection:
            raise ConfigError(
                f"{work.encoder.name} has become {encoder.info.fingerprint} while "
                f"{work.info.fingerprint} is built; pin its revision"
            )
        self._work = work
        catalog = open_catalog(work.catalog)
        self._ledger = catalog.ledger
        client = LocalEncoder(encoder, work.encoder.decode_threads)
        self._indexer = Indexer(client, MilvusStore(work.milvus), catalog.ledger, catalog.blobs)
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(_THREADS, "blocking"))
        self._room = asyncio.Semaphore(work.batches_in_flight)
        threading.Thread(target=self._loop.run_forever, name="indexing", daemon=True).start()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Index what is missing of the range `first`, `beyond`; returns the counts by state and the times."""
        began = time.time()
        counts = self._wait(self._index_range(row["first"], row["beyond"]))
        return {
            "indexed": counts["indexed"],
            "failed": counts["failed"],
            "pending": counts["pending"],
            "began": began,
            "ended": time.time(),
        }

    def _wait(self, work: Coroutine[Any, Any, Counter[IndexState]]) -> Counter[IndexState]:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _index_range(self, first: str, beyond: str) -> Counter[IndexState]:
        counts: Counter[IndexState] = Counter()
        size = self._work.batch_size
        try:
            while items := await self._missing(first, beyond):
                batches = [items[start : start + size] for start in range(0, len(items), size)]
                for states in await asyncio.gather(*(self._index(batch) for batch in batches)):
                    counts.update(states.values())
                # Beyond the last id that was read, all of which have as many digits: what could not be done
                # now is left to the next pass.
                first = f"{items[-1].image_id}0"
        except Unavailable:
            counts["pending"] += 1
        return counts

    async def _missing(self, first: str, beyond: str) -> list[IndexItem]:
        limit = self._work.batch_size * _READ_BATCHES
        collection = self._work.info.collection
        return await asyncio.to_thread(self._ledger.missing_between, collection, first, beyond, limit)

    async def _index(self, batch: Sequence[IndexItem]) -> dict[str, IndexState]:
        async with self._room:
            return await self._indexer.index(batch)
