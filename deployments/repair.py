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
from core.indexing import Indexer, SweepReport
from deployments.caption_sweeps import CaptionSweeps
from deployments.captions_config import IngestCaptions
from deployments.config import RepairArgs, ServedModels
from deployments.handles import HandleEncoder
from deployments.threads import widen_thread_pool
from milvus.store import MilvusStore

logger = logging.getLogger("ray.serve")


class RepairReplica:
    """Sweeps the collections of all models; one replica is enough, several do no harm."""

    def __init__(self, args: RepairArgs) -> None:
        self._args = args
        self._catalog = open_catalog(args.catalog)
        self._store = MilvusStore(args.milvus)
        self._indexers: dict[str, Indexer] = {}
        self._captions = None if args.captions is None else self._captioning(args.captions)
        self._loops: list[asyncio.Task[None]] = []

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Take over the list of models, in place; the first call starts the loops."""
        widen_thread_pool()
        self._indexers = {
            name: self._indexer(name) for name in ServedModels.model_validate(user_config).models
        }
        if not self._loops:
            # Apart from each other: captions take long, and must not hold up what a search needs.
            steps = [self.sweep] if self._captions is None else [self.sweep, self._captions.sweep]
            self._loops = [asyncio.create_task(self._repeat(step)) for step in steps]

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

    def _indexer(self, name: str) -> Indexer:
        encoder = HandleEncoder(name, self._args.encode_deadline_s)
        return Indexer(encoder, self._store, self._catalog.ledger, self._catalog.blobs)

    def _captioning(self, settings: IngestCaptions) -> CaptionSweeps:
        encoder = HandleEncoder(settings.model, settings.deadline_s)
        captioning = Captioning(encoder, self._catalog.captions, self._catalog.blobs)
        return CaptionSweeps(settings.model, captioning, settings.batch_size)

    async def _repeat(self, step: Callable[[], Awaitable[object]]) -> None:
        while True:
            await step()
            await asyncio.sleep(self._args.interval_s)

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
