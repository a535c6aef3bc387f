"""The background repair: completes what is pending and removes what is obsolete, from the start on.

Where the configuration asks for it, it also captions the pictures of the catalog.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from catalog.opening import open_catalog
from core.captioning import Captioning
from core.errors import VitrineError
from core.index_rows import IndexRows
from core.indexing import Indexer, SweepReport
from core.store_check import StoreCheck
from deployments.caption_sweeps import CaptionSweeps
from deployments.captions_config import IngestCaptions
from deployments.config import RepairArgs, ServedModels
from deployments.handles import HandleEncoder
from deployments.index_samples import IndexSamples
from deployments.request_ids import as_request, new_request_id
from deployments.sleep import Rests, SleepingEncoder
from deployments.telemetry import start_telemetry
from deployments.threads import widen_thread_pool
from milvus.store import MilvusStore

logger = logging.getLogger(__name__)


class RepairReplica:
    """Sweeps the collections of all models; one replica is enough, several do no harm."""

    def __init__(self, args: RepairArgs) -> None:
        start_telemetry()
        self._args = args
        self._catalog = open_catalog(args.catalog)
        self._samples = IndexSamples(self._catalog.index_progress, args.sample_interval_s)
        self._encoders: list[SleepingEncoder] = []
        self._store = MilvusStore(args.milvus)
        self._check = StoreCheck(self._store, self._catalog.ledger)
        self._rests = Rests()
        self._indexers: dict[str, Indexer] = {}
        self._captions = None if args.captions is None else self._captioning(args.captions)
        self._loops: list[asyncio.Task[None]] = []

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Take over the list of models, in place; the first call starts the loops."""
        widen_thread_pool()
        models = ServedModels.model_validate(user_config).models
        self._encoders = [self._encoder(name, self._args.encode_deadline_s) for name in models]
        self._indexers = {
            encoder.name: Indexer(
                encoder,
                self._store,
                self._catalog.ledger,
                self._catalog.blobs,
                IndexRows(self._store, self._catalog.ledger, self._check),
            )
            for encoder in self._encoders
        }
        if not self._loops:
            # Apart from each other: captions take long, and must not hold up what a search needs.
            loops = [self._repeat("repair", self.sweep), self._sample_for_ever()]
            if self._captions is not None:
                loops.append(self._repeat("captions", self._captions.sweep))
            self._loops = [asyncio.create_task(loop) for loop in loops]

    async def check_health(self) -> None:
        """Fail when a loop has ended; Serve then replaces the replica."""
        for loop in self._loops:
            if loop.done():
                loop.result()

    async def sweep(self) -> dict[str, SweepReport | str]:
        """Make one pass now; returns what was done, or what stood in the way, by model."""
        indexers = dict(self._indexers)
        # Side by side: a model that is away, and hangs until its deadline, must not hold up the others.
        reports = await asyncio.gather(*(self._sweep(name, indexer) for name, indexer in indexers.items()))
        return dict(zip(indexers, reports, strict=True))

    def _captioning(self, settings: IngestCaptions) -> CaptionSweeps:
        encoder = self._encoder(settings.model, settings.deadline_s)
        captioning = Captioning(encoder, self._catalog.captions, self._catalog.blobs)
        return CaptionSweeps(settings.model, captioning, settings.batch_size)

    def _encoder(self, name: str, deadline_s: float) -> SleepingEncoder:
        return SleepingEncoder(HandleEncoder(name, deadline_s), self._rests.of)

    async def _repeat(self, name: str, step: Callable[[], Awaitable[object]]) -> None:
        while True:
            with as_request(new_request_id(name)):
                await step()
            await asyncio.sleep(self._args.interval_s)

    async def _sample_for_ever(self) -> None:
        while True:
            await asyncio.sleep(await self._samples.sample(self._encoders))

    async def _sweep(self, name: str, indexer: Indexer) -> SweepReport | str:
        try:
            report = await indexer.sweep(self._args.batch_size, self._args.grace_s)
        except VitrineError as error:
            return error.message
        except Exception:
            logger.exception("repair of %s failed", name)
            return "internal error; see the logs"
        if report != SweepReport():
            logger.info("repair of %s: %s", name, report)
        return report
