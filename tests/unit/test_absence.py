"""Who asks for a member that is away, and for how long."""

import asyncio

import pytest

from core import absence
from core.absence import Absence
from core.errors import ModelUnavailable


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
    monkeypatch.setattr(absence, "PAUSE_S", 0.01)


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


def test_nobody_is_asked_for_that_nobody_wants() -> None:
    async def run() -> None:
        sleeper = Sleeper(refusals=1_000_000)
        away = Absence(sleeper.answer)
        away.begin()
        await asyncio.sleep(0.2)
        assert sleeper.asked == 1
        assert not away.lasts()

    asyncio.run(run())
