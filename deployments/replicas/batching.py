"""Batches that gather across requests while the model is busy, with their metrics and spans."""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from core.concurrency import start_shared
from core.errors import ModelUnavailable, VitrineError
from deployments.observability.metrics import BATCH_SIZE, ERRORS, STAGE_SECONDS
from deployments.observability.telemetry import error_type, past_span

Input = TypeVar("Input")
Output = TypeVar("Output")


@dataclass(slots=True)
class _Waiting(Generic[Input, Output]):
    """An input; the times are of the loop's clock."""

    item: Input
    answer: asyncio.Future[Output]
    since_s: float
    begun_s: float = math.inf


class Batches(Generic[Input, Output]):
    """Runs a function on batches of inputs that arrive one by one, each awaited by its own caller.

    Inputs that come while the function is busy make up the next batch, up to the largest size. Serve's own
    `serve.batch` closes a batch a fixed time after its first input, however long that batch must then wait. Under
    load its batches stay small, and small batches cost two to three times as much per image.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Input]], Sequence[Output]],
        kind: Literal["image", "text", "caption"],
        max_size: int,
        *,
        thread: Executor,
        wait_s: float,
        model: str,
    ) -> None:
        """`run` answers a batch in order, in `thread`; an input waits at most `wait_s` for others."""
        self._run, self._thread = run, thread
        self._max_size, self._wait_s = max_size, wait_s
        self._model, self._kind = model, kind
        self._queue: deque[_Waiting[Input, Output]] = deque()
        self._full = asyncio.Event()
        self._work: asyncio.Task[None] | None = None
        self.failed_in_a_row = 0
        """Last batches in which the model answered no input. What is wrong with an input does not count."""

    async def submit(self, item: Input) -> Output:
        """Return the function's answer to this input; raises what the function raised for the batch."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting[Input, Output](item, loop.create_future(), loop.time())
        self._queue.append(waiting)
        if len(self._queue) >= self._max_size:
            self._full.set()
        if self._work is None or self._work.done():
            self._work = start_shared(self._run_all())
        try:
            return await waiting.answer
        finally:
            now_s = loop.time()
            if waiting.begun_s <= now_s:
                # Here, in the context of the request; the batch belongs to none.
                past_span("queue", waiting.since_s, waiting.begun_s, now_s, **{"vitrine.model": self._model})
                past_span("forward", waiting.begun_s, now_s, now_s, **{"vitrine.model": self._model})

    async def _run_all(self) -> None:
        while self._queue:
            if len(self._queue) < self._max_size:
                self._full.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(self._queue[0].since_s + self._wait_s):
                        await self._full.wait()
            if batch := self._take():
                await self._run_one(batch)

    def _take(self) -> list[_Waiting[Input, Output]]:
        batch: list[_Waiting[Input, Output]] = []
        while self._queue and len(batch) < self._max_size:
            waiting = self._queue.popleft()
            # The caller may have gone.
            if not waiting.answer.done():
                batch.append(waiting)
        return batch

    async def _run_one(self, batch: list[_Waiting[Input, Output]]) -> None:
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        for each in batch:
            each.begun_s = begun_s
        outcomes: Sequence[object]
        try:
            answers = await loop.run_in_executor(self._thread, self._run, [each.item for each in batch])
            outcomes = answers
            for each, answer in zip(batch, answers, strict=True):
                if not each.answer.done():
                    each.answer.set_result(answer)
        except Exception as error:  # raised where the callers wait
            outcomes = [error] * len(batch)
            for each in batch:
                if not each.answer.done():
                    each.answer.set_exception(error)
        self._record(outcomes, batch[0].since_s, begun_s, loop.time())

    def _record(self, outcomes: Sequence[object], since_s: float, begun_s: float, ended_s: float) -> None:
        failures = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        is_failed = len(failures) == len(outcomes) and all(
            isinstance(each, ModelUnavailable) or not isinstance(each, VitrineError) for each in failures
        )
        self.failed_in_a_row = self.failed_in_a_row + 1 if is_failed else 0
        for failure in failures:
            ERRORS.add(stage="forward", model=self._model, type=error_type(failure))
        BATCH_SIZE.observe(len(outcomes), model=self._model, input=self._kind)
        STAGE_SECONDS.observe(begun_s - since_s, stage="queue", model=self._model)
        STAGE_SECONDS.observe(ended_s - begun_s, stage="forward", model=self._model)
