"""Passes over the gap of a collection, each a Ray Data run, until it is closed.

A range is read, decoded, encoded and written in one stage, since each further stage costs a copy of every
picture through the object store; blocks hold nothing but ranges and counts, so memory stays flat whatever
the size of the catalog, and the pool takes up a range only when it has room.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext

from core.bulk import BulkConfig
from core.errors import Unavailable
from core.ports import Ledger
from jobs.cluster import own_errors
from jobs.run import JobRun
from jobs.shard_indexer import ShardIndexer, ShardWork
from jobs.shards import Shard, cut
from jobs.speed import Speed

CALLS_AT_ONCE = 2
"""Ranges that one actor has in hand: the next one begins while the last batches of the first are written."""
_BACKOFF_S = 2.0


class Passes:
    """Indexes what is missing of one collection; counts and speed add up over the passes."""

    def __init__(
        self,
        run: JobRun,
        work: ShardWork,
        ledger: Ledger,
        bulk: BulkConfig,
        resources: dict[str, float],
        take_in: Callable[[], int],
    ) -> None:
        """`take_in` completes what actors have only put into files; returns how many rows those held."""
        self.speed = Speed(run.started)
        self.indexed = self.failed = 0
        self._run = run
        self._work = work
        self._ledger = ledger
        self._bulk = bulk
        self._resources = resources
        self._take_in = take_in
        files = work.files
        self._shard_pictures = bulk.shard_pictures if files is None else files.file_pictures

    def run_until_complete(self, share: float) -> None:
        """Go round until what is missing is no more than live traffic has added meanwhile.

        Raises:
            Conflict: the job was cancelled.
            Unavailable: encoder or store were away for longer than the configured patience.
        """
        waited_s = 0.0
        # An earlier build may have been killed between its encoding and the end of this.
        self._take_in()
        while gap := self.gap():
            done, pending = self._pass(cut(gap, self._shard_pictures, share), round(gap * share))
            if self._take_in():
                self.speed.lasted_until(time.time())
            if not pending and (share < 1 or self.gap() <= self._bulk.gap_threshold):
                return
            if pending and not done:
                waited_s += _BACKOFF_S
                if waited_s > self._bulk.patience_s:
                    raise Unavailable(f"{pending} pictures wait for a store or model that is away")
                self._run.report(stage="waiting for a store or model that is away")
                self._run.pause(_BACKOFF_S)
            else:
                waited_s = 0.0

    def gap(self) -> int:
        """Count what is missing."""
        return self._ledger.counts(self._work.info.collection).missing

    def _pass(self, shards: Sequence[Shard], gap: int) -> tuple[int, int]:
        """Index the shards; returns how many pictures are done and how many have to wait."""
        self._run.report(stage="starting the encoders")
        done = pending = 0
        before = self.speed.done
        with own_errors():
            for result in self._results(shards):
                self._run.check()
                done += result["indexed"] + result["failed"]
                pending += result["pending"]
                self.indexed += result["indexed"]
                self.failed += result["failed"]
                self.speed.add(result)
                self._report(before + gap)
        return done, pending

    def _results(self, shards: Sequence[Shard]) -> Iterator[dict[str, Any]]:
        bulk = self._bulk
        DataContext.get_current().enable_progress_bars = False
        # A block a shard: blocks are what the pool's actors take up one by one.
        ranges = ray.data.from_items([asdict(shard) for shard in shards], override_num_blocks=len(shards))
        indexed = ranges.map(
            ShardIndexer,
            fn_constructor_args=(self._work,),
            compute=ActorPoolStrategy(
                min_size=bulk.min_actors,
                max_size=max(bulk.min_actors, min(bulk.max_actors, len(shards))),
                max_concurrent_calls_per_actor=CALLS_AT_ONCE,
                max_tasks_in_flight_per_actor=2 * CALLS_AT_ONCE,
                enable_true_multi_threading=True,
            ),
            **self._resources,
        )
        yield from indexed.iter_rows()

    def _report(self, total: int) -> None:
        done = self.indexed + self.failed
        self._run.report(
            stage="indexing",
            total=max(total, done),
            done=self.indexed,
            failed=self.failed,
            images_per_s=self.speed.images_per_s,
            eta_s=self.speed.seconds_for(max(total - done, 0)),
        )
