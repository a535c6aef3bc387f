"""Passes over the gap of a collection: Ray Data hands shards to actors that hold the model, until it is closed.

A shard is read, decoded, encoded and written in one stage, since each further stage costs a copy of every
image through the object store. Blocks hold ranges and counts only, so memory does not grow with the catalog.
The pool takes up a shard only when it has room.
"""

import asyncio
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext

from catalog.database import CatalogConfig
from catalog.ledger import SqlLedger
from catalog.opening import open_catalog
from core.concurrency import batched
from core.config import BulkConfig, FileImportConfig
from core.errors import ConfigError, Unavailable
from core.index_rows import IndexRows
from core.indexing import Indexer
from core.telemetry import answering
from core.types import EncoderInfo, IndexItem
from jobs.build.file_import import StagedRows, Staging
from jobs.build.shards import Shard, ShardDone, Speed, cut
from jobs.runner.cluster import own_errors
from jobs.runner.context import JobRun
from milvus.bulk_import import RowFile
from milvus.config import MilvusConfig
from milvus.store import MilvusStore
from models.config import EncoderConfig
from models.encoder import Encoder, LocalEncoder

_READ_BATCHES = 16
"""Batches that one read of the ledger brings."""
_THREADS = 64
"""Calls that may wait for files, the database and Milvus at once."""
CALLS_AT_ONCE = 2
"""Shards that one actor has in hand: the next one begins while the last batches of the first are written."""
_BACKOFF_S = 2.0

Load = Callable[[EncoderConfig], Encoder]


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


class ShardIndexer:
    """Decodes in threads, encodes in one, and writes meanwhile: several batches are under way at once.

    Calls may overlap, so that the last batches of one shard go along with the first of the next.
    """

    def __init__(self, work: ShardWork) -> None:
        """Load the model.

        Raises:
            ConfigError: it is another version than the build is for.
        """
        encoder = work.load(work.encoder)
        if encoder.info.fingerprint != work.info.fingerprint:
            raise ConfigError(
                f"{work.encoder.name} has become {encoder.info.fingerprint} while "
                f"{work.info.fingerprint} is built; pin its revision"
            )
        self._work = work
        self._catalog = open_catalog(work.catalog)
        self._store = MilvusStore(work.milvus)
        self._client = LocalEncoder(encoder, work.encoder.decode_threads, work.info.index_schema)
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
        staging = Staging(config, self._work.info.collection)
        with TemporaryDirectory(prefix="vitrine-rows-") as folder:
            file = RowFile(
                Path(folder) / "rows.parquet", self._work.info.dimension, self._work.milvus.attribute_kinds
            )
            rows = StagedRows(self._store, self._catalog.ledger, file)
            done = await self._index_with(self._indexer(rows), first, beyond)
            await asyncio.to_thread(file.close)
            try:
                if file.rows:
                    # Never a name twice: Milvus may be reading an earlier file of this shard.
                    await asyncio.to_thread(staging.put, file.path, f"{uuid.uuid4().hex}.parquet")
            except Unavailable:
                done.postpone()
        return done

    async def _index_with(self, indexer: Indexer, first: str, beyond: str) -> ShardDone:
        done = ShardDone()
        size = self._work.batch_size
        try:
            limit, collection = size * _READ_BATCHES, self._work.info.collection
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


@dataclass
class Passes:
    """Indexes what is missing of one collection; counts and speed add up over the passes.

    `import_files` completes what actors have only put into files, and returns how many rows those held.
    """

    run: JobRun
    work: ShardWork
    ledger: SqlLedger
    bulk: BulkConfig
    resources: dict[str, Any]
    import_files: Callable[[], int] = lambda: 0
    indexed: int = 0
    failed: int = 0
    speed: Speed = field(init=False)

    def __post_init__(self) -> None:
        """Measure from the start of the job."""
        self.speed = Speed(self.run.started)

    def run_until_complete(self, share: float) -> None:
        """Repeat until no more is missing than live traffic has added meanwhile.

        Raises:
            Conflict: the job was canceled.
            Unavailable: encoder or store were away for longer than the configured patience.
        """
        waited_s, files = 0.0, self.work.files
        shard_images = self.bulk.shard_images if files is None else files.file_images
        # An earlier build may have been killed between its encoding and the end of this.
        self.import_files()
        while gap := self.gap():
            done, pending = self._pass(cut(gap, shard_images, share), round(gap * share))
            if self.import_files():
                self.speed.lasted_until(time.time())
            if not pending and (share < 1 or self.gap() <= self.bulk.gap_threshold):
                return
            if pending and not done:
                waited_s += _BACKOFF_S
                if waited_s > self.bulk.patience_s:
                    raise Unavailable(f"{pending} images wait for a store or model that is away")
                self.run.report(stage="waiting for a store or model that is away")
                self.run.pause(_BACKOFF_S)
            else:
                waited_s = 0.0

    def gap(self) -> int:
        """Count what is missing."""
        return self.ledger.counts(self.work.info.collection).missing

    def _pass(self, shards: Sequence[Shard], gap: int) -> tuple[int, int]:
        """Index the shards; returns how many images are done and how many have to wait."""
        self.run.report(stage="starting the encoders")
        done = pending = 0
        before = self.speed.done
        with own_errors():
            for result in self._results(shards):
                self.run.check()
                done += result["indexed"] + result["failed"]
                pending += result["pending"]
                self.indexed += result["indexed"]
                self.failed += result["failed"]
                self.speed.add(result)
                self._report(before + gap)
        return done, pending

    def _results(self, shards: Sequence[Shard]) -> Iterator[dict[str, Any]]:
        bulk = self.bulk
        DataContext.get_current().enable_progress_bars = False
        # A block a shard: blocks are what the pool's actors take up one by one.
        ranges = ray.data.from_items([asdict(shard) for shard in shards], override_num_blocks=len(shards))
        indexed = ranges.map(
            ShardIndexer,
            fn_constructor_args=(self.work,),
            compute=ActorPoolStrategy(
                min_size=bulk.min_actors,
                max_size=max(bulk.min_actors, min(bulk.max_actors, len(shards))),
                max_concurrent_calls_per_actor=CALLS_AT_ONCE,
                max_tasks_in_flight_per_actor=2 * CALLS_AT_ONCE,
                enable_true_multi_threading=True,
            ),
            **self.resources,
        )
        yield from indexed.iter_rows()

    def _report(self, total: int) -> None:
        done = self.indexed + self.failed
        self.run.report(
            stage="indexing",
            total=max(total, done),
            done=self.indexed,
            failed=self.failed,
            images_per_s=self.speed.images_per_s,
            eta_s=self.speed.seconds_for(max(total - done, 0)),
        )
