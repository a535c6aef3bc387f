"""The work of one actor that does it all: a shard is read, decoded, encoded and written by one process."""

import asyncio
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from catalog.database import CatalogConfig
from catalog.opening import open_catalog
from core.concurrency import batched
from core.config import FileImportConfig
from core.errors import ConfigError, Unavailable
from core.index_rows import IndexRows
from core.indexing import Indexer
from core.telemetry import answering
from core.types import EncoderInfo, ImageInput, IndexItem
from jobs.build.file_import import StagedRows, Staging
from jobs.build.shards import ShardDone
from milvus.bulk_import import RowFile
from milvus.config import MilvusConfig
from milvus.store import MilvusStore
from models.config import EncoderConfig
from models.encoder import Encoder, Pixels
from models.local_encoder import LocalEncoder

READ_BATCHES = 16
"""Batches that one read of the ledger brings."""
_THREADS = 64
"""Calls that may wait for files, the database and Milvus at once."""

Load = Callable[[EncoderConfig], Encoder]
Decode = Callable[[ImageInput], Pixels]
"""Decodes images for a model without it, as `Encoder.decoder` returns."""


@dataclass(frozen=True, slots=True)
class ShardWork:
    """The arguments of every actor of a build."""

    catalog: CatalogConfig
    milvus: MilvusConfig
    encoder: EncoderConfig
    info: EncoderInfo
    batch_size: int
    batches_in_flight: int
    load: Load
    files: FileImportConfig | None = None
    """Place of the files that Milvus imports; None for upserts."""
    request_id: str = ""

    def load_encoder(self) -> Encoder:
        """Load the model.

        Raises:
            ConfigError: it is another version than the build is for.
        """
        encoder = self.load(self.encoder)
        encoder.ends_process = True
        if encoder.info.fingerprint != self.info.fingerprint:
            raise ConfigError(
                f"{self.encoder.name} has become {encoder.info.fingerprint} while "
                f"{self.info.fingerprint} is built; pin its revision"
            )
        return encoder

    @contextmanager
    def row_file(self) -> Iterator[RowFile]:
        """Open a file for rows that Milvus imports, in a folder that goes with the block."""
        with TemporaryDirectory(prefix="vitrine-rows-") as folder:
            yield RowFile(Path(folder) / "rows.parquet", self.info.dimension, self.milvus.attribute_kinds)

    def hand_in(self, file: RowFile, config: FileImportConfig, done: ShardDone) -> None:
        """Put a whole file where Milvus imports it; its images are pending where that fails."""
        file.close()
        try:
            if file.rows:
                # Never a name twice: Milvus may be reading an earlier file of this shard.
                Staging(config, self.info.collection).put(file.path, f"{uuid.uuid4().hex}.parquet")
        except Unavailable:
            done.postpone()


class ShardIndexer:
    """Decodes in threads, encodes in one, and writes meanwhile: several batches are under way at once.

    Calls may overlap, so that the last batches of one shard go along with the first of the next.
    """

    def __init__(self, work: ShardWork) -> None:
        """Load the model.

        Raises:
            ConfigError: it is another version than the build is for.
        """
        # The thread that loads the model runs it too: graphs that it records belong to a thread.
        model = ThreadPoolExecutor(1, "model")
        encoder = model.submit(work.load_encoder).result()
        self._work = work
        self._catalog = open_catalog(work.catalog)
        self._store = MilvusStore(work.milvus)
        threads, schema = work.encoder.decode_threads, work.info.index_schema
        self._client = LocalEncoder(encoder, threads, schema, model)
        self._upserting = self._indexer(IndexRows(self._store, self._catalog.ledger))
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(_THREADS, "blocking"))
        self._room = asyncio.Semaphore(work.batches_in_flight)
        threading.Thread(target=self._loop.run_forever, name="indexing", daemon=True).start()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Index what is missing of the shard `first`, `beyond`; returns the counts by state and the times."""
        with answering(self._work.request_id):
            if self._work.files is None:
                work = self._index_with(self._upserting, row["first"], row["beyond"])
            else:
                work = self._write_file(self._work.files, row["first"], row["beyond"])
            return asyncio.run_coroutine_threadsafe(work, self._loop).result().row()

    def _indexer(self, rows: IndexRows) -> Indexer:
        return Indexer(self._client, self._store, self._catalog.ledger, self._catalog.blobs, rows)

    async def _write_file(self, config: FileImportConfig, first: str, beyond: str) -> ShardDone:
        """Write the shard into one file, which is there when all of it is."""
        with self._work.row_file() as file:
            rows = StagedRows(self._store, self._catalog.ledger, file)
            done = await self._index_with(self._indexer(rows), first, beyond)
            await asyncio.to_thread(self._work.hand_in, file, config, done)
        return done

    async def _index_with(self, indexer: Indexer, first: str, beyond: str) -> ShardDone:
        done = ShardDone()
        size = self._work.batch_size
        try:
            limit, collection = size * READ_BATCHES, self._work.info.collection
            missing = self._catalog.ledger.missing
            while items := await asyncio.to_thread(missing, collection, limit, within=(first, beyond)):
                await asyncio.gather(*(self._index(indexer, batch, done) for batch in batched(items, size)))
                # Beyond the last id that was read, all of which have as many digits: what could not be done
                # now is left to the next pass.
                first = f"{items[-1].image_id}0"
        except Unavailable:
            done.counts["pending"] += 1
        return done

    async def _index(self, indexer: Indexer, batch: Sequence[IndexItem], done: ShardDone) -> None:
        async with self._room:
            done.add(await indexer.index(batch))
