"""The circuit breaker: probes of a member that is away, and their end."""

import asyncio

import pytest

from core import concurrency
from core.concurrency import CircuitBreaker
from core.errors import ModelUnavailable
from deployments.http.middleware import ending_at, within_deadline


class Member:
    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.asked = 0

    async def answer(self) -> None:
        self.asked += 1
        await asyncio.sleep(0)
        if self.asked <= self.refusals:
            raise ModelUnavailable("no replica")


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concurrency, "PROBE_PAUSE_S", 0.01)


def test_it_closes_when_the_member_answers_and_one_probe_runs_at_a_time() -> None:
    async def run() -> None:
        member = Member(refusals=2)
        breaker = CircuitBreaker(member.answer)
        assert not breaker.is_open()
        breaker.open()
        breaker.open()
        while breaker.is_open():
            await asyncio.sleep(0.005)
        assert member.asked == 3

    asyncio.run(run())


def test_the_deadline_of_the_search_that_waited_in_vain_does_not_end_the_probes() -> None:
    async def run() -> None:
        limits_s: list[float] = []

        async def answer() -> None:
            limits_s.append(within_deadline(30))

        breaker = CircuitBreaker(answer)
        with ending_at(asyncio.get_running_loop().time()):
            breaker.open()
        while breaker.is_open():
            await asyncio.sleep(0.005)
        assert limits_s == [30]

    asyncio.run(run())


def test_a_bug_of_a_probe_is_logged_and_probing_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        asked = list[int]()

        async def answer() -> None:
            asked.append(1)
            if len(asked) == 1:
                raise ZeroDivisionError("a bug of ours")

        breaker = CircuitBreaker(answer)
        breaker.open()
        while breaker.is_open():
            await asyncio.sleep(0.005)
        assert len(asked) == 2

    asyncio.run(run())
    assert "ZeroDivisionError: a bug of ours" in caplog.text


def test_a_member_that_nobody_wants_is_not_probed() -> None:
    async def run() -> None:
        member = Member(refusals=1_000_000)
        breaker = CircuitBreaker(member.answer)
        breaker.open()
        await asyncio.sleep(0.2)
        assert member.asked == 1
        assert not breaker.is_open()

    asyncio.run(run())
