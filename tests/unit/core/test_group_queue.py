"""The group queue: items that arrive while calls are under way share the next one."""

import asyncio
from collections.abc import Sequence

import pytest

from core import concurrency
from core.concurrency import GroupQueue
from core.errors import DeadlineExceeded, Internal, InvalidInput, StoreUnavailable, VitrineError

pytestmark = pytest.mark.anyio


class Calls:
    """A function whose calls wait until they are let go; negative items fail, and 0 fails the whole call."""

    def __init__(self, *, at_once: int = 1) -> None:
        self.groups: list[list[int]] = []
        self.free = asyncio.Event()
        self.queue = GroupQueue(self.run, "doubling", at_once, weight=abs)

    async def run(self, group: Sequence[int]) -> list[int | VitrineError]:
        self.groups.append(list(group))
        await self.free.wait()
        if 0 in group:
            raise StoreUnavailable("down")
        return [2 * each if each > 0 else InvalidInput("negative") for each in group]

    def submit(self, *items: int, within_s: float | None = None) -> asyncio.Task[list[int | VitrineError]]:
        return asyncio.create_task(self.queue.submit(items, within_s))


async def settled() -> None:
    """Let all tasks run until they wait."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_comes_while_a_call_is_under_way_makes_up_the_next_one() -> None:
    calls = Calls()
    callers = [calls.submit(1)]
    await settled()
    callers += [calls.submit(number, 10 + number) for number in (2, 3, 4)]
    await settled()
    assert calls.groups == [[1]]
    calls.free.set()
    assert await asyncio.gather(*callers) == [[2], [4, 24], [6, 26], [8, 28]]
    assert calls.groups == [[1], [2, 12, 3, 13, 4, 14]]


async def test_no_more_calls_are_under_way_than_allowed() -> None:
    calls = Calls(at_once=2)
    callers = []
    for number in (1, 2, 3, 4):
        callers.append(calls.submit(number))
        await settled()
    assert calls.groups == [[1], [2]]
    calls.free.set()
    await asyncio.gather(*callers)
    assert calls.groups == [[1], [2], [3, 4]]


async def test_a_group_fits_a_call_and_what_is_too_heavy_goes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concurrency, "MAX_ENCODE_BYTES", 10)
    monkeypatch.setattr(concurrency, "MAX_ENCODE_INPUTS", 3)
    calls = Calls()
    calls.free.set()
    assert await calls.submit(11, 4, 6, 1, 1, 1, 1) == [22, 8, 12, 2, 2, 2, 2]
    assert calls.groups == [[11], [4, 6], [1, 1, 1], [1]]


async def test_each_item_fails_alone_and_a_call_that_fails_spares_the_next() -> None:
    calls = Calls()
    calls.free.set()
    doubled, refused = await calls.submit(3, -3)
    assert doubled == 6
    assert isinstance(refused, InvalidInput)
    down = await calls.submit(0, 5)
    assert [type(each) for each in down] == [StoreUnavailable] * 2
    assert await calls.submit(5) == [10]


async def test_an_error_that_is_not_ours_is_logged_and_becomes_internal(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(group: Sequence[int]) -> list[int | VitrineError]:
        raise ZeroDivisionError

    (outcome,) = await GroupQueue(broken, "doubling").submit([1])
    assert isinstance(outcome, Internal)
    assert "doubling failed" in caplog.text


async def test_what_has_not_begun_in_time_is_dropped_and_what_has_begun_is_not() -> None:
    calls = Calls()
    begun = calls.submit(1, within_s=0)
    await settled()
    waiting = calls.submit(2, within_s=0)
    (dropped,) = await waiting
    assert isinstance(dropped, DeadlineExceeded)
    calls.free.set()
    assert await begun == [2]
    assert calls.groups == [[1]]


async def test_the_items_of_a_caller_that_goes_away_are_dropped() -> None:
    calls = Calls()
    first = calls.submit(1)
    await settled()
    gone, other = calls.submit(2), calls.submit(3)
    await settled()
    gone.cancel()
    await settled()
    calls.free.set()
    assert await asyncio.gather(first, other) == [[2], [6]]
    assert calls.groups == [[1], [3]]


async def test_nothing_to_do_is_done_at_once() -> None:
    assert await Calls().queue.submit([]) == []


async def test_what_comes_as_the_last_call_ends_has_a_call_of_its_own() -> None:
    calls = Calls()
    first = calls.submit(1)
    await settled()

    async def submit_as_it_ends() -> list[int | VitrineError]:
        await calls.free.wait()
        return await calls.queue.submit([2])

    # Both wait for the same event, so the second goes on right after the call, before any callback.
    second = asyncio.create_task(submit_as_it_ends())
    await settled()
    calls.free.set()
    await settled()
    assert first.done()
    assert second.done()
    assert await second == [4]


async def test_a_call_that_is_canceled_leaves_no_caller_waiting() -> None:
    groups: list[list[int]] = []

    async def canceled_once(group: Sequence[int]) -> list[int | VitrineError]:
        groups.append(list(group))
        await asyncio.sleep(0)
        if group[0] == 1:
            raise asyncio.CancelledError
        return list(group)

    queue = GroupQueue(canceled_once, "nothing")
    first = asyncio.create_task(queue.submit([1]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    second = asyncio.create_task(queue.submit([2]))
    await settled()
    assert first.cancelled()
    assert second.done()
    assert await second == [2]
    assert groups == [[1], [2]]


async def test_a_call_that_answers_too_little_fails_as_a_whole() -> None:
    async def nothing(group: Sequence[int]) -> list[int | VitrineError]:
        return []

    outcomes = asyncio.create_task(GroupQueue(nothing, "nothing").submit([1, 2]))
    await settled()
    assert outcomes.done()
    assert [type(each) for each in await outcomes] == [Internal] * 2
