"""A cache with a time to live: one read serves all who ask, and a failure is not kept."""

import asyncio
from types import SimpleNamespace

import pytest

from core.concurrency import TtlCache
from core.errors import Unavailable

pytestmark = pytest.mark.anyio


class Reads:
    """Answers with the number of reads until now."""

    def __init__(self) -> None:
        self.count = 0
        self.away = False
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def __call__(self, _key: str) -> int:
        self.count += 1
        await self.go_on.wait()
        if self.away:
            raise Unavailable("the database is away")
        return self.count


async def test_a_value_is_kept_for_its_time_to_live_by_key() -> None:
    cache = TtlCache(Reads(), ttl_s=60)
    assert [await cache.get("a") for _ in range(20)] == [1] * 20
    assert await cache.get("b") == 2


async def test_all_who_ask_meanwhile_share_a_read_that_nobody_cancels() -> None:
    reads = Reads()
    cache = TtlCache(reads, ttl_s=0)
    reads.go_on.clear()
    asking = [asyncio.create_task(cache.get("a")) for _ in range(20)]
    await asyncio.sleep(0)
    asking[0].cancel()
    await asyncio.wait(asking[:1])
    reads.go_on.set()
    assert await asyncio.gather(*asking[1:]) == [1] * 19
    assert reads.count == 1


async def test_a_time_to_live_of_zero_keeps_nothing() -> None:
    cache = TtlCache(Reads(), ttl_s=0, share=20)
    assert [await cache.get("a") for _ in range(3)] == [1, 2, 3]


async def test_what_takes_long_to_read_is_read_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("core.concurrency.time", SimpleNamespace(monotonic=lambda: now[0]))

    class Slow(Reads):
        async def __call__(self, key: str) -> int:
            now[0] += 3
            return await super().__call__(key)

    cache, seen = TtlCache(Slow(), ttl_s=2, share=20), []
    for at in (0, 10, 62, 64):
        now[0] = max(now[0], at)
        seen.append(await cache.get("a"))
    assert seen == [1, 1, 1, 2], "what took three seconds is kept for a minute"


async def test_a_failure_is_not_kept() -> None:
    reads = Reads()
    cache = TtlCache(reads, ttl_s=60)
    reads.away = True
    with pytest.raises(Unavailable):
        await cache.get("a")
    reads.away = False
    assert await cache.get("a") == 2
