"""Passes over the gap of a collection: Ray Data hands shards to actors, until the gap is closed.

Without `decode_actors` one actor does all the work of a shard, since each further stage costs a copy of every image
through the object store. With them a shard passes three stages. Its block holds a range and a count, so
memory does not grow with the catalog. A pool takes up a block only when it has room.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import ray
from ray.data import DataContext, Dataset

from catalog.ledger import SqlLedger
from core.config import BulkConfig
from core.errors import Unavailable
from jobs.build.shard_indexer import Decode, ShardIndexer, ShardWork
from jobs.build.shards import Shard, Speed, cut
from jobs.build.stages import BLOCK_BYTES, CALLS_AT_ONCE, decoded, encoded, pool, written
from jobs.runner.cluster import own_errors
from jobs.runner.context import JobRun

_BACKOFF_S = 2.0


@dataclass(frozen=True, slots=True)
class DecodePool:
    """The processes that decode for a build, and how each decodes."""

    actors: int
    decoder: Decode


@dataclass
class Passes:
    """Indexes what is missing of one collection; counts and speed add up over the passes.

    Without `decode` the actors with the model decode too.

    `import_files` completes what actors have only put into files, and returns how many rows those held.
    """

    run: JobRun
    work: ShardWork
    ledger: SqlLedger
    bulk: BulkConfig
    resources: dict[str, Any]
    decode: DecodePool | None = None
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
        # In one stage a shard is a file; with `decode` a file gathers the rows of many shards.
        shard_images = files.file_images if files and self.decode is None else self.bulk.shard_images
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
        context = DataContext.get_current()
        context.enable_progress_bars, context.target_max_block_size = False, BLOCK_BYTES
        # A block a shard: blocks are what the pool's actors take up one by one.
        ranges = ray.data.from_items([asdict(shard) for shard in shards], override_num_blocks=len(shards))
        run = self._in_one_stage if self.decode is None else self._in_stages
        yield from run(ranges, len(shards)).iter_rows()

    def _in_one_stage(self, ranges: Dataset, shards: int) -> Dataset:
        actors = pool(*self._models(shards), CALLS_AT_ONCE)
        return ranges.map(ShardIndexer, fn_constructor_args=(self.work,), compute=actors, **self.resources)

    def _in_stages(self, ranges: Dataset, shards: int) -> Dataset:
        bulk, decode = self.bulk, self.decode
        assert decode is not None
        # One at first: the others come as the cluster has room beside the models.
        actors = pool(1, min(decode.actors, shards), calls=1)
        images = decoded(ranges, self.work, decode.decoder, actors, bulk.cpus_per_decode_actor)
        vectors = encoded(images, self.work, self._models(shards), self.resources)
        return written(vectors, self.work, bulk.max_actors)

    def _models(self, shards: int) -> tuple[int, int]:
        """Return how many actors hold the model at least and at most."""
        bulk = self.bulk
        return bulk.min_actors, max(bulk.min_actors, min(bulk.max_actors, shards))

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
