"""How far the indexes have come, sampled in one place and at a bounded pace for Prometheus."""

import asyncio
import logging
import time
from collections.abc import Sequence

from catalog.index_progress import SqlIndexProgress
from core.errors import Unavailable, VitrineError
from core.ports import EncoderClient
from deployments.metrics import (
    CATALOG_PICTURES,
    INDEX_AGE,
    INDEXED_PICTURES,
    LEDGER_GAP,
    QUARANTINED,
    SAMPLED_AT,
)

logger = logging.getLogger(__name__)

_SHARE = 20
"""A sample reads the whole ledger, so the pause is at least so many times as long as reading took."""


class IndexSamples:
    """Samples the collection that each model serves; of one that is away, the collection it served last."""

    def __init__(self, progress: SqlIndexProgress, interval_s: float) -> None:
        self._progress = progress
        self._interval_s = interval_s
        self._collections: dict[str, str] = {}

    async def sample(self, encoders: Sequence[EncoderClient]) -> float:
        """Set the gauges anew; returns how long to wait before the next sample, in seconds."""
        reading_s = 0.0
        # One after the other: the database has other work.
        for encoder in encoders:
            try:
                reading_s += await self._sample(encoder)
            except VitrineError as error:
                logger.warning("the ledger of %s cannot be sampled: %s", encoder.name, error.message)
        return max(self._interval_s, _SHARE * reading_s)

    async def _sample(self, encoder: EncoderClient) -> float:
        """Set the gauges of one model; returns how long the database took, in seconds."""
        try:
            self._collections[encoder.name] = (await encoder.describe()).collection
        except Unavailable:
            if encoder.name not in self._collections:
                return 0.0
        started = time.monotonic()
        progress = await asyncio.to_thread(self._progress.of, self._collections[encoder.name])
        took_s = time.monotonic() - started
        counts, model = progress.counts, encoder.name
        CATALOG_PICTURES.set(counts.pictures)
        INDEXED_PICTURES.set(counts.indexed, model=model)
        LEDGER_GAP.set(counts.missing, model=model)
        QUARANTINED.set(counts.failed, model=model)
        INDEX_AGE.set(progress.age_s, model=model)
        SAMPLED_AT.set(time.time(), model=model)
        return took_s
