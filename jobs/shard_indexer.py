"""What one actor of a bulk build does: it holds the model and completes one range of ids after another."""

import asyncio
import threading
import uuid
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from catalog.config import CatalogConfig
from catalog.opening import open_catalog
from core.bulk import FileImportConfig
from core.errors import ConfigError, Unavailable
from core.index_rows import IndexRows
from core.indexing import Indexer
from core.portions import parts
from core.request_ids import answering
from core.types import EncoderInfo, IndexItem
from jobs.shard_done import ShardDone
from jobs.staged_rows import StagedRows
from jobs.staging import Staging
from milvus.config import MilvusConfig
from milvus.row_files import RowFile
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
    files: FileImportConfig | None = None
    """Where rows are put for Milvus to import, in place of upserts."""
    request_id: str = ""


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
        self._catalog = open_catalog(work.catalog)
        self._store = MilvusStore(work.milvus)
        self._client = LocalEncoder(encoder, work.encoder.decode_threads)
        self._upserting = self._indexer(IndexRows(self._store, self._catalog.ledger))
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(_THREADS, "blocking"))
        self._room = asyncio.Semaphore(work.batches_in_flight)
        threading.Thread(target=self._loop.run_forever, name="indexing", daemon=True).start()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Index what is missing of the range `first`, `beyond`; returns the counts by state and the times."""
        index = self._index_range if self._work.files is None else self._stage_range
        with answering(self._work.request_id):
            done = self._wait(index(row["first"], row["beyond"]))
        return done.row()

    def _wait(self, work: Coroutine[Any, Any, ShardDone]) -> ShardDone:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _indexer(self, rows: IndexRows) -> Indexer:
        return Indexer(self._client, self._store, self._catalog.ledger, self._catalog.blobs, rows)

    async def _index_range(self, first: str, beyond: str) -> ShardDone:
        return await self._index_with(self._upserting, first, beyond)

    async def _stage_range(self, first: str, beyond: str) -> ShardDone:
        """Put the range into one file, which is there when all of it is."""
        assert self._work.files is not None
        staging = Staging(self._work.files, self._work.info.collection)
        with TemporaryDirectory(prefix="vitrine-rows-") as folder:
            file = RowFile(Path(folder) / "rows.parquet", self._work.info.dimension)
            rows = StagedRows(self._store, self._catalog.ledger, file)
            done = await self._index_with(self._indexer(rows), first, beyond)
            await asyncio.to_thread(file.close)
            try:
                if file.rows:
                    # Never a name twice: Milvus may be reading an earlier file of this range.
                    await asyncio.to_thread(staging.put, file.path, f"{uuid.uuid4().hex}.parquet")
            except Unavailable:
                done.put_off()
        return done

    async def _index_with(self, indexer: Indexer, first: str, beyond: str) -> ShardDone:
        done = ShardDone()
        size = self._work.batch_size
        try:
            while items := await self._missing(first, beyond):
                await asyncio.gather(*(self._index(indexer, batch, done) for batch in parts(items, size)))
                # Beyond the last id that was read, all of which have as many digits: what could not be done
                # now is left to the next pass.
                first = f"{items[-1].image_id}0"
        except Unavailable:
            done.counts["pending"] += 1
        return done

    async def _missing(self, first: str, beyond: str) -> list[IndexItem]:
        limit = self._work.batch_size * _READ_BATCHES
        collection = self._work.info.collection
        missing = self._catalog.ledger.missing_between
        return await asyncio.to_thread(missing, collection, first, beyond, limit)

    async def _index(self, indexer: Indexer, batch: Sequence[IndexItem], done: ShardDone) -> None:
        async with self._room:
            done.add(await indexer.index(batch))
