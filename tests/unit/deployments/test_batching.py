"""Batches gather while the function is busy, and record their size and time in metrics."""

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from core.errors import InvalidImage, InvalidInput, ModelUnavailable
from deployments.observability.metrics import BATCH_SIZE, ERRORS, STAGE_SECONDS
from deployments.replicas.batching import Batches, BatchMetrics
from tests.support.telemetry import RecordedMetrics, Spans

pytestmark = pytest.mark.anyio


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


class Watch(BatchMetrics):
    """Remembers the sizes of batches, and how long inputs waited and ran."""

    def __init__(self) -> None:
        super().__init__("tested", "image")
        self.sizes: list[int] = []
        self.in_order: list[bool] = []
        self.waited: list[bool] = []

    def batch(self, size: int, since_s: float, begun_s: float, ended_s: float) -> None:
        self.in_order.append(since_s <= begun_s <= ended_s)
        self.sizes.append(size)

    def item(self, since_s: float, begun_s: float, ended_s: float) -> None:
        self.in_order.append(since_s <= begun_s <= ended_s)
        self.waited.append(begun_s - since_s >= 0.04)


@pytest.fixture
def watch() -> Iterator[Watch]:
    watch = Watch()
    yield watch
    assert all(watch.in_order)


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


async def test_answers_come_back_in_order(
    doubling: Doubling, thread: ThreadPoolExecutor, watch: Watch
) -> None:
    batches = Batches[int, int](doubling, thread, max_size=4, wait_s=0.05, metrics=watch)
    assert await asyncio.gather(*(batches.submit(n) for n in range(10))) == [2 * n for n in range(10)]
    assert doubling.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert watch.sizes == [4, 4, 2]
    assert len(watch.waited) == 10


async def test_what_comes_while_the_function_is_busy_makes_one_batch(
    doubling: Doubling, thread: ThreadPoolExecutor, watch: Watch
) -> None:
    batches = Batches[int, int](doubling, thread, max_size=8, wait_s=0.0, metrics=watch)
    doubling.go_on.clear()
    waiting = [asyncio.create_task(batches.submit(0))]
    while not doubling.batches:
        await asyncio.sleep(0.001)
    # They are all submitted before the loop comes to what is next.
    waiting += [asyncio.create_task(batches.submit(number)) for number in range(1, 7)]
    await asyncio.sleep(0)
    doubling.go_on.set()
    await asyncio.gather(*waiting)
    assert doubling.batches == [[0], [1, 2, 3, 4, 5, 6]]


async def test_a_full_batch_does_not_wait(
    doubling: Doubling, thread: ThreadPoolExecutor, watch: Watch
) -> None:
    batches = Batches[int, int](doubling, thread, max_size=3, wait_s=30, metrics=watch)
    started = time.monotonic()
    await asyncio.gather(*(batches.submit(n) for n in range(3)))
    assert time.monotonic() - started < 25


async def test_an_input_alone_waits_no_longer_than_said(
    doubling: Doubling, thread: ThreadPoolExecutor, watch: Watch
) -> None:
    batches = Batches[int, int](doubling, thread, max_size=3, wait_s=0.05, metrics=watch)
    started = time.monotonic()
    assert await batches.submit(1) == 2
    assert 0.04 < time.monotonic() - started < 25
    assert doubling.batches == [[1]]
    assert watch.waited == [True]


async def test_a_batch_that_raises_fails_its_own_inputs_only(
    doubling: Doubling, thread: ThreadPoolExecutor, watch: Watch
) -> None:
    batches = Batches[int, int](doubling, thread, max_size=2, wait_s=0.01, metrics=watch)
    answers = await asyncio.gather(*(batches.submit(n) for n in (1, -1, 3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [InvalidInput, InvalidInput, int]
    assert await batches.submit(5) == 10


async def test_an_input_whose_caller_has_gone_is_left_out(
    doubling: Doubling, thread: ThreadPoolExecutor, watch: Watch
) -> None:
    batches = Batches[int, int](doubling, thread, max_size=2, wait_s=0.05, metrics=watch)
    gone, staying = (asyncio.create_task(batches.submit(n)) for n in (1, 2))
    await asyncio.sleep(0)
    gone.cancel()
    assert await staying == 4
    assert doubling.batches == [[2]]
    assert len(watch.waited) == 1, "who went before its batch began has waited for nothing"
    assert await batches.submit(7) == 14


async def test_a_function_that_leaves_out_an_answer_leaves_nobody_waiting(
    thread: ThreadPoolExecutor, watch: Watch
) -> None:
    batches = Batches[int, int](lambda batch: batch[1:], thread, 8, 0.01, watch)
    async with asyncio.timeout(30):
        answers = await asyncio.gather(*(batches.submit(n) for n in range(3)), return_exceptions=True)
    assert any(isinstance(answer, ValueError) for answer in answers)
    assert await asyncio.wait_for(Batches[int, int](list, thread, 8, 0.01, watch).submit(7), 30) == 7


class Broken(BatchMetrics):
    def batch(self, size: int, since_s: float, begun_s: float, ended_s: float) -> None:
        raise RuntimeError("no metrics")

    def item(self, since_s: float, begun_s: float, ended_s: float) -> None:
        raise RuntimeError("no spans")


async def test_what_cannot_be_recorded_is_answered_all_the_same(
    doubling: Doubling, thread: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    batches = Batches[int, int](doubling, thread, 2, 0.01, Broken("tested", "image"))
    async with asyncio.timeout(30):
        assert await asyncio.gather(*(batches.submit(n) for n in range(5))) == [2 * n for n in range(5)]
    assert "no metrics" in caplog.text
    assert "no spans" in caplog.text


def test_a_batch_tells_its_size_and_apart_how_long_it_waited_and_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = RecordedMetrics(monkeypatch)
    BatchMetrics("dinov2", "image").batch(3, since_s=10.0, begun_s=10.5, ended_s=12.0)
    assert recorded.of(BATCH_SIZE, model="dinov2", input="image") == [3]
    assert recorded.of(STAGE_SECONDS, model="dinov2", stage="queue") == [0.5]
    assert recorded.of(STAGE_SECONDS, model="dinov2", stage="forward") == [1.5]


def test_only_what_the_model_could_not_take_is_an_error_of_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = RecordedMetrics(monkeypatch)
    answers = [np.zeros(2), InvalidImage("no image"), ModelUnavailable("gone"), InvalidImage("none either")]
    BatchMetrics("blip2", "image").errors(answers)
    assert recorded.of(ERRORS, model="blip2", stage="forward", type="invalid_image") == [1, 1]
    assert recorded.of(ERRORS, model="blip2", stage="forward", type="model_unavailable") == [1]
    assert len(recorded.of(ERRORS)) == 3


def test_an_input_of_a_traced_request_has_a_span_of_its_wait_and_of_its_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spans = Spans(monkeypatch)

    async def answered() -> None:
        now_s = asyncio.get_running_loop().time()
        BatchMetrics("dinov2", "image").item(since_s=now_s - 3, begun_s=now_s - 2, ended_s=now_s)

    with spans.root():
        asyncio.run(answered())
    for name, seconds in (("queue", 1), ("forward", 2)):
        ended = spans.ended[name]
        assert ended.attributes == {"vitrine.model": "dinov2"}
        assert ended.start_time is not None
        assert ended.end_time is not None
        assert ended.end_time - ended.start_time == pytest.approx(seconds * 1e9, abs=1e3)
