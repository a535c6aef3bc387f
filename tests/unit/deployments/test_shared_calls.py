"""Calls that images of several requests share: each caller is answered, fails, times out and goes away alone."""

import asyncio
import gc
import inspect
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.serve._private.router import AsyncioRouter, CurrentLoopRouter, RouterMetricsManager

from core.errors import DeadlineExceeded, Internal, InvalidInput, ModelUnavailable, VitrineError
from core.types import Encoded, EncoderInfo, EncoderInput, Vector
from deployments.http.middleware import within_deadline
from deployments.replicas import shared_calls
from deployments.replicas.shared_calls import CALLS_A_REPLICA, MAX_TOGETHER, SharedCalls

pytestmark = pytest.mark.anyio
INFO = EncoderInfo("model", "fake", "checkpoint", "f" * 12, 2, ("image",), "fp32", "cpu")
Answers = Callable[[Sequence[EncoderInput]], list[Vector | VitrineError]]


def numbered(images: Sequence[EncoderInput]) -> list[Vector | VitrineError]:
    return [np.array([int(image), 1], np.float32) for image in images if isinstance(image, bytes)]


def number_in(answer: Encoded) -> float:
    vector = answer.vectors[0]
    assert not isinstance(vector, VitrineError)
    return float(vector[0])


class Encoders:
    """Stands in for the handle: replicas that answer when they are let, and the requests that Serve counts."""

    def __init__(self, replicas: int = 1, answers: Answers = numbered, deadline_s: float = 60.0) -> None:
        self.calls: list[list[EncoderInput]] = []
        self.canceled: list[list[EncoderInput]] = []
        self.may_answer = asyncio.Event()
        self.counted = 0
        """Requests that the autoscaler sees: calls under way, and what is counted beside them."""
        self._answers, self._deadline_s = answers, deadline_s
        metrics = SimpleNamespace(
            inc_num_running_requests_for_replica=lambda _: self._count(1),
            dec_num_running_requests_for_replica=lambda _: self._count(-1),
        )
        names = {f"replica-{number}": None for number in range(replicas)}
        router = SimpleNamespace(
            request_router=SimpleNamespace(curr_replicas=names), _metrics_manager=metrics
        )
        self.serve_handle: Any = SimpleNamespace(_router=SimpleNamespace(_asyncio_router=router))

    async def call(self, method: str, *args: Any) -> Encoded:
        assert method == "encode"
        images = list(args[0])
        self.calls.append(images)
        self._count(1)
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            self.canceled.append(images)
            raise
        finally:
            self._count(-1)
        return Encoded(INFO, self._answers(images))

    @asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(within_deadline(self._deadline_s)):
                yield
        except TimeoutError:
            raise DeadlineExceeded("late") from None

    def _count(self, change: int) -> None:
        self.counted += change


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no image be sent for the time that it has waited."""
    monkeypatch.setattr(shared_calls, "HOLD_S", 3600.0)


def start(shared: SharedCalls, images: range) -> list[asyncio.Task[Encoded]]:
    return [asyncio.create_task(shared.encode(b"%d" % number)) for number in images]


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_few_images_have_their_own_calls() -> None:
    encoders = Encoders(replicas=2)
    tasks = start(SharedCalls(encoders), range(2 * CALLS_A_REPLICA))
    await settle()
    assert encoders.calls == [[b"0"], [b"1"], [b"2"], [b"3"]]
    encoders.may_answer.set()
    assert [number_in(await task) for task in tasks] == [0, 1, 2, 3]


async def test_images_that_arrive_while_calls_are_under_way_go_together_and_each_has_its_own_answer() -> None:
    encoders = Encoders()
    tasks = start(SharedCalls(encoders), range(7))
    await settle()
    assert encoders.calls == [[b"0"], [b"1"]]
    encoders.may_answer.set()
    answers = await asyncio.gather(*tasks)
    assert encoders.calls[2:] == [[b"2", b"3", b"4", b"5", b"6"]]
    assert [number_in(answer) for answer in answers] == list(range(7))
    assert all(len(answer.vectors) == 1 for answer in answers)


async def test_a_call_has_a_largest_number_of_images() -> None:
    encoders = Encoders()
    tasks = start(SharedCalls(encoders), range(CALLS_A_REPLICA + MAX_TOGETHER + 1))
    await settle()
    encoders.may_answer.set()
    await asyncio.gather(*tasks)
    assert [len(call) for call in encoders.calls] == [1, 1, MAX_TOGETHER, 1]


async def test_images_wait_only_for_a_moment_for_a_call_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_calls, "HOLD_S", 0.0)
    encoders = Encoders()
    tasks = start(SharedCalls(encoders), range(CALLS_A_REPLICA + 3))
    while len(encoders.calls) < 3:
        await asyncio.sleep(0)
    assert encoders.calls[2] == [b"2", b"3", b"4"]
    encoders.may_answer.set()
    await asyncio.gather(*tasks)


async def test_the_autoscaler_sees_each_request_once() -> None:
    encoders = Encoders()
    shared = SharedCalls(encoders)
    tasks = start(shared, range(7))
    await settle()
    assert encoders.counted == 7
    shared._send()
    await settle()
    assert [len(call) for call in encoders.calls] == [1, 1, 5]
    assert encoders.counted == 7
    tasks[3].cancel()
    await settle()
    assert encoders.counted == 6
    encoders.may_answer.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert encoders.counted == 0


async def test_an_image_fails_alone() -> None:
    def answers(images: Sequence[EncoderInput]) -> list[Vector | VitrineError]:
        return [
            InvalidInput("no image") if image == b"3" else vector
            for image, vector in zip(images, numbered(images), strict=True)
        ]

    encoders = Encoders(answers=answers)
    tasks = start(SharedCalls(encoders), range(5))
    await settle()
    encoders.may_answer.set()
    found = [(await task).vectors[0] for task in tasks]
    assert [isinstance(each, InvalidInput) for each in found] == [False, False, False, True, False]


async def test_requests_with_the_same_bad_image_have_an_error_of_their_own_each() -> None:
    def answers(images: Sequence[EncoderInput]) -> list[Vector | VitrineError]:
        # As from a replica, which answers equal images once.
        return [InvalidInput("no image")] * len(images)

    encoders = Encoders(answers=answers)
    tasks = start(SharedCalls(encoders), range(4))
    await settle()
    encoders.may_answer.set()
    errors = [(await task).vectors[0] for task in tasks[2:]]
    for place, error in enumerate(errors):
        assert isinstance(error, InvalidInput)
        error.at(f"input[{place}]")
    assert [getattr(error, "param", None) for error in errors] == ["input[0]", "input[1]"]


async def test_answered_calls_leave_no_images_to_the_garbage_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        encoders = Encoders()
        tasks = start(SharedCalls(encoders), range(7))
        await settle()
        encoders.may_answer.set()
        await asyncio.gather(*tasks)
        assert not [each for each in gc.get_objects() if type(each) is shared_calls._Waiting]
    finally:
        gc.enable()


async def test_an_image_that_breaks_a_call_costs_the_others_nothing() -> None:
    def answers(images: Sequence[EncoderInput]) -> list[Vector | VitrineError]:
        if b"3" in images:
            raise Internal("a bug")
        return numbered(images)

    encoders = Encoders(answers=answers)
    tasks = start(SharedCalls(encoders), range(5))
    await settle()
    encoders.may_answer.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(each, Internal) for each in found] == [False, False, False, True, False]
    assert encoders.calls[2:] == [[b"2", b"3", b"4"], [b"2"], [b"3"], [b"4"]]
    assert encoders.counted == 0


async def test_what_is_wrong_with_the_replicas_is_an_error_of_its_own_for_each() -> None:
    def answers(_images: Sequence[EncoderInput]) -> list[Vector | VitrineError]:
        raise ModelUnavailable("busy")

    encoders = Encoders(answers=answers)
    tasks = start(SharedCalls(encoders), range(5))
    await settle()
    encoders.may_answer.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(each, ModelUnavailable) for each in found)
    assert len({id(each) for each in found[2:]}) == 3
    assert len(encoders.calls) == 3


async def test_a_caller_that_goes_away_costs_the_others_nothing() -> None:
    encoders = Encoders()
    shared = SharedCalls(encoders)
    tasks = start(shared, range(6))
    await settle()
    tasks[2].cancel()
    await settle()
    shared._send()
    tasks[3].cancel()
    await settle()
    assert encoders.calls[2] == [b"3", b"4", b"5"]
    encoders.may_answer.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(each, asyncio.CancelledError) for each in found] == [
        *(False, False),
        *(True, True),
        *(False, False),
    ]
    assert encoders.canceled == []


async def test_a_call_that_nobody_waits_for_any_more_is_canceled() -> None:
    encoders = Encoders()
    shared = SharedCalls(encoders)
    tasks = start(shared, range(4))
    await settle()
    shared._send()
    await settle()
    for task in tasks[2:]:
        task.cancel()
    await settle()
    assert encoders.canceled == [[b"2", b"3"]]
    assert encoders.counted == 2
    encoders.may_answer.set()
    await asyncio.gather(*tasks[:2])


async def test_a_caller_is_late_alone() -> None:
    encoders = Encoders(deadline_s=0.0)
    shared = SharedCalls(encoders)
    first = start(shared, range(CALLS_A_REPLICA))
    await settle()
    with pytest.raises(DeadlineExceeded):
        await shared.encode(b"7")
    encoders.may_answer.set()
    assert len(await asyncio.gather(*first)) == CALLS_A_REPLICA
    assert encoders.calls == [[b"0"], [b"1"]]


async def test_no_image_waits_where_requests_cannot_be_counted() -> None:
    encoders = Encoders(replicas=0)
    tasks = start(SharedCalls(encoders), range(5))
    await settle()
    assert [len(call) for call in encoders.calls] == [1] * 5
    encoders.may_answer.set()
    await asyncio.gather(*tasks)


async def test_a_traced_request_goes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_calls, "trace_id", lambda: "0" * 32)
    encoders = Encoders()
    tasks = start(SharedCalls(encoders), range(5))
    await settle()
    assert [len(call) for call in encoders.calls] == [1] * 5
    encoders.may_answer.set()
    await asyncio.gather(*tasks)


def test_serve_has_the_names_that_count_requests() -> None:
    assert "self._asyncio_router = AsyncioRouter(" in inspect.getsource(CurrentLoopRouter)
    assert "self._metrics_manager = " in inspect.getsource(AsyncioRouter)
    assert isinstance(AsyncioRouter.request_router, property)
    for name in ("inc_num_running_requests_for_replica", "dec_num_running_requests_for_replica"):
        assert list(inspect.signature(getattr(RouterMetricsManager, name)).parameters) == [
            "self",
            "replica_id",
        ]
