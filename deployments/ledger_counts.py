"""How far collections have come, as of a moment ago: counting reads every picture's line of the ledger."""

import asyncio
import time
from dataclasses import dataclass

from core.ports import Ledger
from core.shared_work import start_shared
from core.types import LedgerCounts

_SHARE = 20
"""Counts are believed at least so many times as long as counting took: it gets 5 % of the database's time
at most, however large the catalog and however many ask."""


@dataclass(slots=True)
class _Sample:
    counts: asyncio.Task[LedgerCounts]
    believed_until: float = float("inf")


class LedgerCountsSample:
    """Counts each collection at most once in a while; all who ask meanwhile share what was found."""

    def __init__(self, ledger: Ledger, ttl_s: float) -> None:
        self._ledger = ledger
        self._ttl_s = ttl_s
        self._samples: dict[str, _Sample] = {}

    async def of(self, collection: str) -> LedgerCounts:
        """Tell how far a collection has come; may raise Unavailable."""
        sample = self._samples.get(collection)
        if sample is None or time.monotonic() >= sample.believed_until:
            sample = _Sample(start_shared(self._count(collection)))
            self._samples[collection] = sample
        # Who goes away must not take the counts from the others.
        return await asyncio.shield(sample.counts)

    async def _count(self, collection: str) -> LedgerCounts:
        started = time.monotonic()
        believed_s = 0.0
        try:
            counts = await asyncio.to_thread(self._ledger.counts, collection)
            believed_s = max(self._ttl_s, _SHARE * (time.monotonic() - started) if self._ttl_s else 0.0)
            return counts
        finally:
            # A failure is believed by those alone who wait for it.
            self._samples[collection].believed_until = time.monotonic() + believed_s
