"""The weighted semaphore, the circuit breaker and the cache with a time to live."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from core.concurrency import CircuitBreaker, TtlCache, WeightedSemaphore
from core.errors import ModelUnavailable, Overloaded, Unavailable
from deployments.http.middleware import ending_at, within_deadline

pytestmark = pytest.mark.anyio


@pytest.fixture
def semaphore() -> WeightedSemaphore:
    return WeightedSemaphore()


@contextmanager
def at_once(semaphore: WeightedSemaphore, weight: int) -> Iterator[None]:
    """Hold a weight without waiting for it."""
    with semaphore.holding(weight, 10, until=time.monotonic()):
        yield


def waiting(semaphore: WeightedSemaphore, count: int) -> None:
    """Return as soon as so many threads wait for room."""
    ends_at = time.monotonic() + 30
    while len(semaphore._waiting) < count:
        assert time.monotonic() < ends_at
        time.sleep(0.001)


def test_what_is_held_together_never_exceeds_the_limit(semaphore: WeightedSemaphore) -> None:
    lock, held, most = threading.Lock(), [0], [0]

    def work(weight: int) -> None:
        with semaphore.holding(weight, 10):
            with lock:
                held[0] += weight
                most[0] = max(most[0], held[0])
            time.sleep(0.001)
            with lock:
                held[0] -= weight

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, [1, 7, 4, 10, 3, 2, 9, 5] * 8))
    assert held == [0]
    assert 0 < most[0] <= 10


@pytest.mark.parametrize("gives_up", [False, True])
def test_a_heavy_one_goes_before_light_ones_behind_it_until_it_gives_up(
    gives_up: bool, semaphore: WeightedSemaphore
) -> None:
    order = list[str]()

    def work(name: str, weight: int, until: float | None = None) -> None:
        with semaphore.holding(weight, 10, until):
            order.append(name)

    with ThreadPoolExecutor(2) as pool:
        with semaphore.holding(1, 10):
            heavy = pool.submit(work, "heavy", 10, time.monotonic() + 0.2 if gives_up else None)
            waiting(semaphore, 1)
            light = pool.submit(work, "light", 1)
            if gives_up:
                assert isinstance(heavy.exception(30), Overloaded)
                light.result(30)
            else:
                waiting(semaphore, 2)
        heavy.exception(30), light.result(30)
    assert order == (["light"] if gives_up else ["heavy", "light"])


def test_what_exceeds_the_limit_alone_runs_alone(semaphore: WeightedSemaphore) -> None:
    with semaphore.holding(100, 10), pytest.raises(Overloaded), at_once(semaphore, 1):
        pass
    with at_once(semaphore, 10):
        pass


def test_an_error_gives_its_weight_back(semaphore: WeightedSemaphore) -> None:
    with pytest.raises(ZeroDivisionError), semaphore.holding(10, 10):
        raise ZeroDivisionError
    with at_once(semaphore, 10):
        pass


class Member:
    """Raises these errors, one a probe, before it answers; notes the limit of each probe."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.limits_s: list[float] = []

    async def answer(self) -> None:
        self.limits_s.append(within_deadline(30))
        await asyncio.sleep(0)
        if self.errors:
            raise self.errors.pop(0)


async def closed(breaker: CircuitBreaker) -> None:
    while breaker.is_open():
        await asyncio.sleep(0.005)


async def test_a_breaker_closes_when_the_member_answers_one_probe_at_a_time(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.concurrency.PROBE_PAUSE_S", 0.01)
    member = Member(ModelUnavailable("no replica"), ZeroDivisionError("a bug of ours"))
    breaker = CircuitBreaker(member.answer)
    assert not breaker.is_open()
    with ending_at(asyncio.get_running_loop().time()):
        breaker.open()
        breaker.open()
    await closed(breaker)
    assert member.limits_s == [30] * 3, "the deadline of the search that waited in vain is no limit"
    assert "ZeroDivisionError: a bug of ours" in caplog.text


async def test_a_member_that_nobody_wants_is_not_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.concurrency.PROBE_PAUSE_S", 0)
    member = Member(*(ModelUnavailable("no replica") for _ in range(100)))
    breaker = CircuitBreaker(member.answer)
    breaker.open()
    assert breaker._probing is not None
    await breaker._probing
    assert len(member.limits_s) == 1
    assert not breaker.is_open()


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
