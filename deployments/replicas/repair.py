"""The repair: indexes missing images, removes obsolete rows, writes captions, and samples the ledger.

One cheap question to the ledger, asked often, says which collections have work. Each model has loops of its own for
it, so the backlog of one delays no other. Captions are written where the configuration asks for them. Image files
that no product names are removed.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence, Set
from functools import partial
from itertools import cycle
from typing import Any

from catalog.image_files import PREFIXES
from catalog.ledger_queries import SqlIndexProgress
from catalog.opening import open_catalog
from core.concurrency import widen_thread_pool
from core.errors import Internal, Unavailable, VitrineError
from core.index_rows import IndexRows
from core.indexing import Captioner, CaptionReport, Indexer, RepairReport
from core.ports import EncoderClient
from core.store_check import StoreCheck
from deployments.config import IngestCaptions, RepairArgs, ServedModels
from deployments.observability.metrics import (
    CATALOG_IMAGES,
    INDEX_AGE,
    INDEXED_IMAGES,
    LEDGER_GAP,
    QUARANTINED,
    SAMPLED_AT,
)
from deployments.observability.telemetry import as_request, new_request_id, start_telemetry
from deployments.replicas.dependencies import wait_for
from deployments.replicas.handles import HandleEncoder, Scales
from milvus.store import MilvusStore

logger = logging.getLogger(__name__)

_SHARE = 20
"""A pause is at least so many times as long as what it follows, where that reads much and finds nothing to do."""


class IndexSamples:
    """Samples the collection that each model serves, or served last where the model does not answer."""

    def __init__(self, progress: SqlIndexProgress, interval_s: float) -> None:
        self._progress = progress
        self._interval_s = interval_s
        self._collections: dict[str, str] = {}

    async def sample(self, encoders: Sequence[EncoderClient]) -> float:
        """Update the gauges; returns the pause before the next sample, in seconds."""
        reading_s = 0.0
        # One after the other, to spare the database.
        for encoder in encoders:
            try:
                reading_s += await self._sample(encoder)
            except VitrineError as error:
                logger.warning("the ledger of %s cannot be sampled: %s", encoder.name, error.message)
        return max(self._interval_s, _SHARE * reading_s)

    async def _sample(self, encoder: EncoderClient) -> float:
        """Update the gauges of one model; returns the time of the database, in seconds."""
        try:
            self._collections[encoder.name] = (await encoder.describe()).collection
        except Unavailable:
            if encoder.name not in self._collections:
                return 0.0
        started = time.monotonic()
        progress = await asyncio.to_thread(self._progress.of, self._collections[encoder.name])
        took_s = time.monotonic() - started
        counts, model = progress.counts, encoder.name
        CATALOG_IMAGES.set(counts.images)
        INDEXED_IMAGES.set(counts.indexed, model=model)
        LEDGER_GAP.set(counts.missing, model=model)
        QUARANTINED.set(counts.failed, model=model)
        INDEX_AGE.set(progress.age_s, model=model)
        SAMPLED_AT.set(time.time(), model=model)
        return took_s


_FILES_AT_ONCE = 100
"""Files that one call in a thread removes."""


class _Passes:
    """The passes of one kind over the collections of one model: which are due, and what the last one left out."""

    def __init__(self, indexer: Indexer, make: Callable[..., Awaitable[object]], args: RepairArgs) -> None:
        self._indexer, self._make, self._args = indexer, make, args
        self._known: set[str] = set()
        self._is_due, self._is_full = asyncio.Event(), True
        self._full_at = time.monotonic()
        """When the next full pass may be made: one reads all open rows of versions that do not serve."""

    def request(self, of_model: Set[str], unsettled: Set[str], full: bool) -> None:
        """Have a pass made where one is due, by the model's collections and those of all models that have work.

        Collections that do not serve are left to the full passes.
        """
        self._is_full |= full and time.monotonic() >= self._full_at
        serving = set() if self._indexer.serving is None else {self._indexer.serving.collection}
        if self._is_full or unsettled & (of_model - self._known | serving):
            self._is_due.set()
        self._known |= of_model

    async def wait(self) -> None:
        """Return when a pass is due."""
        await self._is_due.wait()
        self._is_due.clear()

    async def make(self) -> object:
        """Make one pass, a full one where the last one was not or has failed."""
        full, started = self._is_full, time.monotonic()
        report = await self._make(self._args.batch_size, self._args.grace_s, full)
        self._is_full &= not full
        if full and report == RepairReport():
            ended = time.monotonic()
            self._full_at = ended + _SHARE * (ended - started)
        return report


class RepairReplica:
    """Repairs the collections of all models. One replica is enough; several do no harm."""

    def __init__(self, args: RepairArgs) -> None:
        start_telemetry()
        self._args = args
        self._catalog = wait_for(lambda: open_catalog(args.catalog))
        self._samples = IndexSamples(self._catalog.index_progress, args.sample_interval_s)
        self._encoders: dict[str, HandleEncoder] = {}
        self._store = MilvusStore(args.milvus)
        self._check = StoreCheck(self._store, self._catalog.ledger)
        self._scales = Scales()
        self._problems: dict[tuple[str, str], str] = {}
        self._loops: list[asyncio.Task[None]] = []
        self._passes: dict[str, list[_Passes]] = {}
        self._loops_of_model: dict[str, list[asyncio.Task[None]]] = {}
        self._models_of: dict[str, str] = {}
        self._full_pass_at = time.monotonic() + args.full_pass_interval_s

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Apply the list of models, in place: loops of new models begin, those of removed models end."""
        widen_thread_pool()
        models = ServedModels.model_validate(user_config).models
        for name in set(self._encoders) - set(models):
            del self._encoders[name], self._passes[name]
            for loop in self._loops_of_model.pop(name):
                loop.cancel()
        for name in models:
            if name not in self._encoders:
                self._encoders[name] = self._encoder(name, self._args.encode_deadline_s)
                self._loops_of_model[name] = self._repair(name, self._encoders[name])
        if not self._loops:
            # Apart from each other, since captions take long and must not delay indexing.
            loops = [self._poll_for_ever(), self._sample_for_ever(), self._remove_files_for_ever()]
            if self._args.captions is not None:
                loops.append(self._caption_for_ever(self._args.captions))
            self._loops = [asyncio.create_task(loop) for loop in loops]

    async def check_health(self) -> None:
        """Fail when a loop has ended; Serve then replaces the replica."""
        for loop in self._running():
            if loop.done():
                cause = None if loop.cancelled() else loop.exception()
                raise RuntimeError("a loop of the repair has ended") from cause

    async def stop(self) -> None:
        """End all loops. The next repair continues their work."""
        loops = self._running()
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)

    def _running(self) -> list[asyncio.Task[None]]:
        return [*self._loops, *(loop for loops in self._loops_of_model.values() for loop in loops)]

    def _encoder(self, name: str, deadline_s: float) -> HandleEncoder:
        return HandleEncoder(
            name, deadline_s, self._scales.of, starts=False, index_schema=self._args.milvus.index_schema
        )

    def _repair(self, name: str, encoder: HandleEncoder) -> list[asyncio.Task[None]]:
        ledger = self._catalog.ledger
        rows = IndexRows(self._store, ledger, self._check)
        indexer = Indexer(encoder, self._store, ledger, self._catalog.blobs, rows)
        # Two loops, so that deleted images leave the collection while thousands are missing.
        kinds = [
            ("repair", f"repair of {name}", _Passes(indexer, indexer.index_missing, self._args)),
            (
                "removal",
                f"removal of obsolete rows of {name}",
                _Passes(indexer, indexer.remove_obsolete, self._args),
            ),
        ]
        self._passes[name] = [passes for _, _, passes in kinds]
        return [asyncio.create_task(self._pass_for_ever(what, passes, kind)) for kind, what, passes in kinds]

    async def _pass_for_ever(self, what: str, passes: _Passes, kind: str) -> None:
        while True:
            await passes.wait()
            await self._attempt(what, passes.make, kind)

    async def _poll_for_ever(self) -> None:
        while True:
            await self._attempt("asking the ledger for work", self._poll, "repair")
            await asyncio.sleep(self._args.interval_s)

    async def _poll(self) -> None:
        """Request passes for models that have work; with nothing to do, this is one read of the database."""
        full = time.monotonic() >= self._full_pass_at
        unsettled = await asyncio.to_thread(self._catalog.ledger.unsettled, self._args.grace_s)
        if full or unsettled - self._models_of.keys():
            versions = await asyncio.to_thread(self._catalog.ledger.versions)
            self._models_of = {each.collection: each.name for each in versions}
        if full:
            self._full_pass_at = time.monotonic() + self._args.full_pass_interval_s
        for name, kinds in self._passes.items():
            of_model = {collection for collection, model in self._models_of.items() if model == name}
            for passes in kinds:
                passes.request(of_model, unsettled, full)

    async def _caption_for_ever(self, settings: IngestCaptions) -> None:
        encoder = self._encoder(settings.model, settings.deadline_s)
        captioner = Captioner(encoder, self._catalog.captions, self._catalog.blobs)
        work = partial(captioner.repair, settings.batch_size)
        while True:
            started = time.monotonic()
            report = await self._attempt(f"captions by {settings.model}", work, "captions")
            took_s = time.monotonic() - started if report == CaptionReport() else 0.0
            await asyncio.sleep(max(self._args.interval_s, _SHARE * took_s))

    async def _sample_for_ever(self) -> None:
        while True:
            await asyncio.sleep(await self._samples.sample(list(self._encoders.values())))

    async def _remove_files_for_ever(self) -> None:
        # Begins at a random prefix, so that a replica that is often replaced sees all files too.
        first = random.randrange(len(PREFIXES))
        for prefix in cycle((*PREFIXES[first:], *PREFIXES[:first])):
            mark = partial(asyncio.to_thread, self._catalog.image_files.mark_unnamed, prefix)
            # Apart from each other: a file that cannot be removed must not keep others from being marked.
            for what, work in (("removing", self._collect_files), ("marking", mark)):
                await self._attempt(f"{what} image files that no product names", work, "files")
            await asyncio.sleep(self._args.file_interval_s)

    async def _collect_files(self) -> None:
        collect, removed, failed, last = self._catalog.image_files.collect, 0, 0, None
        try:
            while True:
                done = await asyncio.to_thread(collect, self._args.file_grace_s, _FILES_AT_ONCE, last)
                removed, failed, last = removed + done.removed, failed + done.failed, done.last
                if last is None:
                    break
        finally:
            if removed:
                logger.info("removed %d image files that no product names", removed)
            if failed:
                logger.warning("%d image files could not be removed and are tried again later", failed)

    async def _attempt(self, what: str, work: Callable[[], Awaitable[object]], kind: str) -> object:
        """Make one pass under a request id of this kind; log what it did, and a problem once as long as it lasts.

        Returns what the pass did; None where it failed.
        """
        with as_request(new_request_id(kind)):
            try:
                report = await work()
            except VitrineError as error:
                if self._problems.get((what, kind)) != error.message:
                    self._problems[what, kind] = error.message
                    level = logging.ERROR if isinstance(error, Internal) else logging.WARNING
                    logger.log(level, "%s: %s", what, error.message)
            except Exception:
                logger.exception("%s failed", what)
            else:
                self._problems.pop((what, kind), None)
                if isinstance(report, RepairReport | CaptionReport) and report != type(report)():
                    logger.info("%s: %s", what, report)
                return report
        return None
