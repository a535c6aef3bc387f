"""Counting reads the whole ledger, so all who ask within the time to live share one count."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from core.errors import Unavailable
from core.ports import Ledger
from core.types import LedgerCounts
from deployments.services.status import LedgerCountsCache

pytestmark = pytest.mark.anyio


class Counting:
    """A ledger that counts how often it was asked, and answers with that."""

    def __init__(self) -> None:
        self.asked = 0
        self.away = False
        self.go_on = threading.Event()
        self.go_on.set()

    def counts(self, collection: str) -> LedgerCounts:
        self.asked += 1
        assert self.go_on.wait(60)
        if self.away:
            raise Unavailable("the database is away")
        return LedgerCounts(self.asked, 0, 0, 0)


def cache(ledger: Counting, ttl_s: float) -> LedgerCountsCache:
    return LedgerCountsCache(cast(Ledger, ledger), ttl_s)


async def test_counts_are_kept_for_their_time_to_live() -> None:
    ledger = Counting()
    counts = cache(ledger, ttl_s=60)
    assert [(await counts.of("a")).images for _ in range(20)] == [1] * 20
    assert (await counts.of("b")).images == 2, "each collection has counts of its own"


async def test_who_asks_meanwhile_shares_the_count_that_is_under_way() -> None:
    ledger = Counting()
    counts = cache(ledger, ttl_s=0)
    ledger.go_on.clear()
    asking = [asyncio.create_task(counts.of("a")) for _ in range(20)]
    await asyncio.sleep(0.01)
    asking[0].cancel()
    ledger.go_on.set()
    answers: list[Any] = await asyncio.gather(*asking, return_exceptions=True)
    assert [each.images for each in answers[1:]] == [1] * 19
    assert ledger.asked == 1


async def test_a_time_to_live_of_zero_keeps_no_counts() -> None:
    counts = cache(Counting(), ttl_s=0)
    assert [(await counts.of("a")).images for _ in range(3)] == [1, 2, 3]


async def test_slow_counting_is_done_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("core.concurrency.time", SimpleNamespace(monotonic=lambda: now[0]))

    class Slow(Counting):
        def counts(self, collection: str) -> LedgerCounts:
            now[0] += 3
            return super().counts(collection)

    counts = cache(Slow(), ttl_s=2)
    seen = []
    for at in (0, 10, 62, 64):
        now[0] = max(now[0], at)
        seen.append((await counts.of("a")).images)
    assert seen == [1, 1, 1, 2], "three seconds of counting are kept for a minute"


async def test_a_failure_is_not_kept() -> None:
    ledger = Counting()
    counts = cache(ledger, ttl_s=60)
    ledger.away = True
    with pytest.raises(Unavailable):
        await counts.of("a")
    ledger.away = False
    assert (await counts.of("a")).images == 2
