"""Circuit breaker: who asks for a member that is away, and for how long."""

import asyncio

import pytest

from core import concurrency
from core.concurrency import Absence
from core.errors import ModelUnavailable
from deployments.http.limits import ending_at, within_deadline


class Sleeper:
    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.asked = 0

    async def answer(self) -> None:
        self.asked += 1
        await asyncio.sleep(0)
        if self.asked <= self.refusals:
            raise ModelUnavailable("asleep")


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concurrency, "PAUSE_S", 0.01)


def test_it_ends_when_the_member_answers_and_one_question_is_asked_at_a_time() -> None:
    async def run() -> None:
        sleeper = Sleeper(refusals=2)
        away = Absence(sleeper.answer)
        assert not away.lasts()
        away.begin()
        away.begin()
        while away.lasts():
            await asyncio.sleep(0.005)
        assert sleeper.asked == 3

    asyncio.run(run())


def test_the_deadline_of_the_search_that_waited_in_vain_does_not_end_the_asking() -> None:
    async def run() -> None:
        limits_s: list[float] = []

        async def answer() -> None:
            limits_s.append(within_deadline(30))

        away = Absence(answer)
        with ending_at(asyncio.get_running_loop().time()):
            away.begin()
        while away.lasts():
            await asyncio.sleep(0.005)
        assert limits_s == [30]

    asyncio.run(run())


def test_a_bug_of_asking_is_logged_and_asking_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        asked = list[int]()

        async def answer() -> None:
            asked.append(1)
            if len(asked) == 1:
                raise ZeroDivisionError("a bug of ours")

        away = Absence(answer)
        away.begin()
        while away.lasts():
            await asyncio.sleep(0.005)
        assert len(asked) == 2

    asyncio.run(run())
    assert "ZeroDivisionError: a bug of ours" in caplog.text


def test_nobody_is_asked_for_that_nobody_wants() -> None:
    async def run() -> None:
        sleeper = Sleeper(refusals=1_000_000)
        away = Absence(sleeper.answer)
        away.begin()
        await asyncio.sleep(0.2)
        assert sleeper.asked == 1
        assert not away.lasts()

    asyncio.run(run())
