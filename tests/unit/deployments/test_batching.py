"""Batches gather while the function is busy, and record their size, time, errors and spans."""

import asyncio
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from core.errors import Internal, InvalidImage, InvalidInput, ModelUnavailable
from deployments.observability.metrics import BATCH_SIZE, ERRORS, STAGE_SECONDS
from deployments.replicas.batching import Answers, Batches, Work
from tests.support.telemetry import RecordedMetrics, Spans

pytestmark = pytest.mark.anyio
Make = Callable[[int, float], Batches[int, int]]


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> RecordedMetrics:
    return RecordedMetrics(monkeypatch)


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


class Doubling:
    """Doubles numbers, slowly once held; remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self, batch: Sequence[int]) -> list[int]:
        self.batches.append(list(batch))
        assert self.go_on.wait(60)
        if -1 in batch:
            raise InvalidInput("no negative numbers")
        return [2 * number for number in batch]


@pytest.fixture
def doubling() -> Doubling:
    return Doubling()


@pytest.fixture
def batches(doubling: Doubling, thread: ThreadPoolExecutor) -> Make:
    def make(max_size: int, wait_s: float) -> Batches[int, int]:
        return Batches(doubling, "image", max_size, thread=thread, wait_s=wait_s, model="tested")

    return make


async def test_answers_come_back_in_order(
    batches: Make, doubling: Doubling, recorded: RecordedMetrics
) -> None:
    made = batches(4, 0.05)
    assert await asyncio.gather(*(made.submit(n) for n in range(10))) == [2 * n for n in range(10)]
    assert doubling.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert recorded.of(BATCH_SIZE, model="tested", input="image") == [4, 4, 2]
    for stage in ("queue", "forward"):
        times = recorded.of(STAGE_SECONDS, model="tested", stage=stage)
        assert len(times) == 3
        assert min(times) >= 0


async def test_what_comes_while_the_function_is_busy_makes_one_batch(
    batches: Make, doubling: Doubling
) -> None:
    made = batches(8, 0.0)
    doubling.go_on.clear()
    waiting = [asyncio.create_task(made.submit(0))]
    while not doubling.batches:
        await asyncio.sleep(0.001)
    # They are all submitted before the loop comes to what is next.
    waiting += [asyncio.create_task(made.submit(number)) for number in range(1, 7)]
    await asyncio.sleep(0)
    doubling.go_on.set()
    await asyncio.gather(*waiting)
    assert doubling.batches == [[0], [1, 2, 3, 4, 5, 6]]


async def test_two_batches_at_most_are_in_a_device_and_each_has_its_own_answers_or_error(
    thread: ThreadPoolExecutor,
) -> None:
    begun, go_on = list[list[int]](), threading.Event()

    def start(batch: Sequence[int]) -> Callable[[], list[int]]:
        begun.append(list(batch))
        if 4 in batch:
            raise InvalidInput("no room for a four")

        def read() -> list[int]:
            assert go_on.wait(60)
            if -1 in batch:
                raise InvalidInput("no negative numbers")
            return [2 * number for number in batch]

        return read

    with ThreadPoolExecutor(1) as reader:
        made = Batches[int, int](start, "image", 2, thread=thread, wait_s=0, model="tested", reader=reader)
        calls = [asyncio.create_task(made.submit(number)) for number in (0, 1, -1, 3, 4, 5, 6, 7)]
        async with asyncio.timeout(30):
            while len(begun) < 2:
                await asyncio.sleep(0.001)
        # Both are in the device, and nothing of the third has begun: that would have come before this.
        await asyncio.wrap_future(thread.submit(lambda: None))
        assert begun == [[0, 1], [-1, 3]]
        go_on.set()
        answers = await asyncio.gather(*calls)
    assert [answers[place] for place in (0, 1, 6, 7)] == [0, 2, 12, 14]
    assert [str(each) for each in answers[2:6]] == [*["no negative numbers"] * 2, *["no room for a four"] * 2]


async def test_a_batch_that_cannot_be_gathered_runs_as_it_is(
    doubling: Doubling, thread: ThreadPoolExecutor
) -> None:
    asked = list[int]()

    def gather(items: Sequence[int]) -> list[int]:
        asked.append(len(items))
        raise RuntimeError("CUDA error: out of memory")

    with ThreadPoolExecutor(1) as helper:
        made = Batches[int, int](
            doubling, "image", 2, thread=thread, wait_s=0, model="tested", gather=gather, gatherer=helper
        )
        answers = await asyncio.gather(*(made.submit(n) for n in range(6)))
    assert answers == [0, 2, 4, 6, 8, 10]
    assert asked


async def test_a_full_batch_is_gathered_while_the_function_is_busy(
    doubling: Doubling, thread: ThreadPoolExecutor, recorded: RecordedMetrics
) -> None:
    gathered = list[list[int]]()

    def gather(items: Sequence[int]) -> list[int]:
        gathered.append(list(items))
        return list(items)

    with ThreadPoolExecutor(1) as helper:
        made = Batches[int, int](
            doubling, "image", 2, thread=thread, wait_s=0, model="tested", gather=gather, gatherer=helper
        )
        doubling.go_on.clear()
        calls = [asyncio.create_task(made.submit(number)) for number in range(6)]
        await asyncio.sleep(0)
        queued_s = asyncio.get_running_loop().time()
        async with asyncio.timeout(30):
            while not gathered:
                await asyncio.sleep(0.001)
        # One is in the function, one stands behind it, and the third waits.
        assert doubling.batches == [[0, 1]]
        assert gathered == [[2, 3]]
        assert len(made._queue) == 2
        free_s = asyncio.get_running_loop().time()
        doubling.go_on.set()
        assert await asyncio.gather(*calls) == [0, 2, 4, 6, 8, 10]
    assert doubling.batches == [[0, 1], [2, 3], [4, 5]]
    # The wait behind another batch is part of the queue.
    waited = recorded.of(STAGE_SECONDS, model="tested", stage="queue")
    assert waited[1] >= free_s - queued_s


async def test_a_batch_that_is_not_full_waits_for_the_function(
    doubling: Doubling, thread: ThreadPoolExecutor
) -> None:
    with ThreadPoolExecutor(1) as helper:
        made = Batches[int, int](
            doubling, "image", 2, thread=thread, wait_s=0, model="tested", gather=list, gatherer=helper
        )
        doubling.go_on.clear()
        calls = [asyncio.create_task(made.submit(number)) for number in (0, 1, 2)]
        while not doubling.batches:
            await asyncio.sleep(0.001)
        calls.append(asyncio.create_task(made.submit(3)))
        await asyncio.sleep(0)
        doubling.go_on.set()
        await asyncio.gather(*calls)
    assert doubling.batches == [[0, 1], [2, 3]]


async def test_a_full_batch_does_not_wait_for_what_is_expected(batches: Make) -> None:
    made, started = batches(3, 30), time.monotonic()
    made.expect(1)
    await asyncio.gather(*(made.submit(n) for n in range(3)))
    assert time.monotonic() - started < 25


async def test_an_input_waits_no_longer_than_said_for_one_that_does_not_come(
    batches: Make, doubling: Doubling, recorded: RecordedMetrics
) -> None:
    made, started = batches(3, 0.05), time.monotonic()
    made.expect(1)
    assert await made.submit(1) == 2
    assert 0.04 < time.monotonic() - started < 25
    assert doubling.batches == [[1]]
    assert recorded.of(STAGE_SECONDS, stage="queue")[0] >= 0.04


async def test_an_input_waits_for_nothing_where_none_is_expected(
    batches: Make, recorded: RecordedMetrics
) -> None:
    started = time.monotonic()
    assert await batches(3, 30).submit(1) == 2
    assert time.monotonic() - started < 25
    assert len(recorded.of(STAGE_SECONDS, stage="queue")) == 1


async def test_a_batch_gathers_all_that_is_expected_and_not_what_turns_out_not_to_come(
    batches: Make, doubling: Doubling
) -> None:
    made, answers = batches(8, 30), Answers[int](3)
    made.expect(4)
    for place, number in enumerate((5, 6, 7)):
        work = Work(number, [(answers, place)])
        made.add([work], expected=1)
        await asyncio.sleep(0)
        assert not doubling.batches, "the batch was closed while an input was on its way"
    made.add([], expected=1)
    assert await answers.all("tested") == [10, 12, 14]
    assert doubling.batches == [[5, 6, 7]]


@pytest.fixture
async def four_and_one(
    batches: Make, doubling: Doubling
) -> tuple[Batches[int, int], list[asyncio.Task[int | Exception]]]:
    """Batches that wait up to 60 s for what is expected: four inputs are in the function, one waits behind them."""
    made = batches(8, 60)
    doubling.go_on.clear()
    calls = [asyncio.create_task(made.submit(number)) for number in range(4)]
    while not doubling.batches:
        await asyncio.sleep(0.001)
    calls.append(asyncio.create_task(made.submit(4)))
    await asyncio.sleep(0)
    return made, calls


async def test_the_callers_of_a_batch_that_ask_again_join_those_who_waited_meanwhile(
    four_and_one: tuple[Batches[int, int], list[asyncio.Task[int | Exception]]],
    doubling: Doubling,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("deployments.replicas.batching.RETURN_SHARE", 1e9)
    made, calls = four_and_one
    doubling.go_on.set()
    async with asyncio.timeout(30):
        assert await asyncio.gather(*calls[:4]) == [0, 2, 4, 6]
        made.expect(4)
        answers = Answers[int](4)
        for place in range(4):
            await asyncio.sleep(0)
            made.add([Work(5 + place, [(answers, place)])], expected=1)
        assert await answers.all("tested") == [10, 12, 14, 16]
        assert await calls[4] == 8
    assert doubling.batches == [[0, 1, 2, 3], [4, 5, 6, 7, 8]]


async def test_one_who_waited_goes_alone_where_nobody_asks_again(
    four_and_one: tuple[Batches[int, int], list[asyncio.Task[int | Exception]]], doubling: Doubling
) -> None:
    _, calls = four_and_one
    doubling.go_on.set()
    async with asyncio.timeout(30):
        assert await asyncio.gather(*calls) == [0, 2, 4, 6, 8]
    assert doubling.batches == [[0, 1, 2, 3], [4]]


async def test_half_a_batch_waits_for_no_callers(
    four_and_one: tuple[Batches[int, int], list[asyncio.Task[int | Exception]]],
    doubling: Doubling,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("deployments.replicas.batching.RETURN_SHARE", 1e9)
    made, calls = four_and_one
    calls.append(asyncio.create_task(made.submit(5)))
    await asyncio.sleep(0)
    doubling.go_on.set()
    async with asyncio.timeout(30):
        assert await asyncio.gather(*calls) == [0, 2, 4, 6, 8, 10]
    assert doubling.batches == [[0, 1, 2, 3], [4, 5]]


async def test_the_time_behind_another_batch_is_no_wait_for_what_is_expected(
    four_and_one: tuple[Batches[int, int], list[asyncio.Task[int | Exception]]], doubling: Doubling
) -> None:
    made, calls = four_and_one
    # It has waited longer for the function than it may wait for others.
    made._queue[0].since_s -= 100
    made.expect(1)
    doubling.go_on.set()
    async with asyncio.timeout(30):
        assert await asyncio.gather(*calls[:4]) == [0, 2, 4, 6]
        await asyncio.sleep(0.05)
        answers = Answers[int](1)
        made.add([Work(5, [(answers, 0)])], expected=1)
        assert await answers.all("tested") == [10]
        assert await calls[4] == 8
    assert doubling.batches == [[0, 1, 2, 3], [4, 5]]


async def test_an_input_is_let_go_as_soon_as_it_is_answered() -> None:
    pixels, answers = np.zeros(4), Answers[int](2)
    held, work = weakref.ref(pixels), Work(pixels, [(answers, 0)])
    answers.works.append(work)
    del pixels
    work.answer(1)
    assert held() is None, "the other input of the request still waits"


async def test_a_batch_that_raises_fails_its_own_inputs_only(batches: Make) -> None:
    made = batches(2, 0.01)
    answers = await asyncio.gather(*(made.submit(n) for n in (1, -1, 3)))
    assert [type(answer) for answer in answers] == [InvalidInput, InvalidInput, int]
    assert await made.submit(5) == 10


async def test_an_input_whose_caller_has_gone_is_left_out(batches: Make, doubling: Doubling) -> None:
    made = batches(3, 0.05)
    made.expect(1)
    gone, staying = (asyncio.create_task(made.submit(n)) for n in (1, 2))
    await asyncio.sleep(0)
    gone.cancel()
    assert await staying == 4
    assert doubling.batches == [[2]]
    assert await made.submit(7) == 14


async def outcomes(answer: Callable[[Sequence[int]], Any], count: int) -> tuple[list[Any], int]:
    """Submit inputs as one batch; returns the outcomes and how many batches have failed in a row."""
    with ThreadPoolExecutor(1) as thread:
        made = Batches[int, Any](answer, "image", count, thread=thread, wait_s=0.01, model="blip2")
        async with asyncio.timeout(30):
            found = await asyncio.gather(*(made.submit(n) for n in range(count)))
        return list(found), made.failed_in_a_row


async def test_a_function_that_leaves_out_an_answer_leaves_nobody_waiting() -> None:
    answers, _ = await outcomes(lambda batch: batch[1:], 3)
    assert any(isinstance(answer, ValueError) for answer in answers)


@pytest.mark.parametrize(
    ("answers", "failed"),
    [
        ([ModelUnavailable("gone")] * 2, 1),
        ([ModelUnavailable("gone"), InvalidInput("no vector")], 0),
        ([InvalidImage("no image"), Internal("a bug that this input meets")], 0),
        ([ModelUnavailable("gone"), 1], 0),
    ],
)
async def test_a_batch_has_failed_where_the_model_and_no_input_is_to_blame(
    answers: list[Any], failed: int, recorded: RecordedMetrics
) -> None:
    assert await outcomes(lambda _batch: answers, 2) == (answers, failed)
    errors = [answer for answer in answers if isinstance(answer, Exception)]
    for error in errors:
        assert recorded.of(ERRORS, model="blip2", stage="forward", type=getattr(error, "kind", ""))
    assert len(recorded.of(ERRORS)) == len(errors)


@pytest.mark.parametrize(("error", "failed"), [(RuntimeError("CUDA error"), 1), (InvalidInput("no"), 0)])
async def test_what_the_function_raises_counts_for_the_batch(error: Exception, failed: int) -> None:
    def refuse(_batch: Sequence[int]) -> list[int]:
        raise error

    assert await outcomes(refuse, 2) == ([error] * 2, failed)


def test_an_input_of_a_traced_request_has_a_span_of_its_wait_and_of_its_pass(
    batches: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = Spans(monkeypatch)
    # One time of day for both, whatever time passes between them.
    monkeypatch.setattr("deployments.observability.telemetry.time", SimpleNamespace(time_ns=lambda: 10**18))

    async def wait_in_vain() -> None:
        made = batches(2, 0.05)
        made.expect(1)
        await made.submit(1)

    with spans.root():
        asyncio.run(wait_in_vain())
    queue, forward = spans.ended["queue"], spans.ended["forward"]
    assert queue.attributes == forward.attributes == {"vitrine.model": "tested"}
    assert queue.start_time is not None
    assert queue.end_time is not None
    assert queue.end_time - queue.start_time >= 0.04e9
    assert forward.start_time == pytest.approx(queue.end_time, abs=1e6)


def test_spans_begin_no_earlier_than_the_request_that_joins_the_work_of_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spans = Spans(monkeypatch)
    monkeypatch.setattr("deployments.observability.telemetry.time", SimpleNamespace(time_ns=lambda: 10**18))

    async def join() -> None:
        answers, now_s = Answers[int](1), asyncio.get_running_loop().time()
        work = Work(1, [(answers, 0)], since_s=now_s - 9, begun_s=now_s - 8)
        answers.works.append(work)
        work.answer(2)
        assert await answers.all("tested") == [2]

    with spans.root():
        asyncio.run(join())
    for name in ("queue", "forward"):
        start_ns = spans.ended[name].start_time
        assert start_ns is not None
        assert start_ns > 10**18 - 10**6 * 5000
