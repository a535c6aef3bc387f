"""Batches that gather across requests while the model is busy, with their metrics and spans."""

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from core.concurrency import start_shared
from deployments.observability.metrics import BATCH_SIZE, ERRORS, STAGE_SECONDS
from deployments.observability.telemetry import error_type
from deployments.observability.tracing import past_span

logger = logging.getLogger(__name__)

Input = TypeVar("Input")
Output = TypeVar("Output")


@dataclass(slots=True)
class _Waiting(Generic[Input, Output]):
    item: Input
    answer: asyncio.Future[Output]
    since_s: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    begun_s: float = math.inf
    """Time at which its batch began; all times are of the loop's clock."""


class BatchMetrics:
    """Metrics and spans of the batches of one kind of input. Times are in seconds of the running loop's clock."""

    def __init__(self, model: str, input: Literal["image", "text", "caption"]) -> None:
        self._model, self._input = model, input

    def batch(self, size: int, since_s: float, begun_s: float, ended_s: float) -> None:
        """Record a batch whose first input came at `since_s`."""
        BATCH_SIZE.observe(size, model=self._model, input=self._input)
        STAGE_SECONDS.observe(begun_s - since_s, stage="queue", model=self._model)
        STAGE_SECONDS.observe(ended_s - begun_s, stage="forward", model=self._model)

    def item(self, since_s: float, begun_s: float, ended_s: float) -> None:
        """Make the spans of an input where its request is traced; called where its caller waits."""
        now_s = asyncio.get_running_loop().time()
        past_span("queue", since_s, begun_s, now_s, **{"vitrine.model": self._model})
        past_span("forward", begun_s, ended_s, now_s, **{"vitrine.model": self._model})

    def errors(self, answers: Iterable[object]) -> None:
        """Count the inputs that failed, by the type of the error."""
        for answer in answers:
            if isinstance(answer, Exception):
                ERRORS.add(stage="forward", model=self._model, type=error_type(answer))


@contextmanager
def _logged() -> Iterator[None]:
    """Log what fails: answers are worth more than their metrics and spans."""
    try:
        yield
    except Exception:
        logger.exception("a batch cannot be recorded")


class Batches(Generic[Input, Output]):
    """Runs a function on the inputs that have gathered, one batch at a time.

    A batch is closed only when the function is free. `serve.batch` closes a batch a fixed time after its first
    input, however long that batch must then wait. Under load its batches stay small, and small batches cost two
    to three times as much per image.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Input]], Sequence[Output]],
        thread: Executor,
        max_size: int,
        wait_s: float,
        metrics: BatchMetrics,
    ) -> None:
        """`run` answers a batch in order, in `thread`; an input waits at most `wait_s` for others."""
        self._metrics = metrics
        self._run, self._thread = run, thread
        self._max_size, self._wait_s = max_size, wait_s
        self._queue: deque[_Waiting[Input, Output]] = deque()
        self._full = asyncio.Event()
        self._work: asyncio.Task[None] | None = None

    async def submit(self, item: Input) -> Output:
        """Return the function's answer to this input; raises what the function raised for the batch."""
        waiting = _Waiting[Input, Output](item, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        if len(self._queue) >= self._max_size:
            self._full.set()
        if self._work is None or self._work.done():
            self._work = start_shared(self._run_all())
        try:
            return await waiting.answer
        finally:
            now_s = asyncio.get_running_loop().time()
            if waiting.begun_s <= now_s:
                with _logged():
                    self._metrics.item(waiting.since_s, waiting.begun_s, now_s)

    async def _run_all(self) -> None:
        while self._queue:
            await self._gather()
            batch = self._take()
            if batch:
                await self._run_one(batch)

    async def _gather(self) -> None:
        """Wait for a full batch, or until the oldest input has waited long enough."""
        waited_s = asyncio.get_running_loop().time() - self._queue[0].since_s
        if len(self._queue) >= self._max_size or waited_s >= self._wait_s:
            return
        self._full.clear()
        try:
            await asyncio.wait_for(self._full.wait(), self._wait_s - waited_s)
        except TimeoutError:
            return

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
        try:
            answers = await loop.run_in_executor(self._thread, self._run, [each.item for each in batch])
            for each, answer in zip(batch, answers, strict=True):
                if not each.answer.done():
                    each.answer.set_result(answer)
        except Exception as error:  # raised where the callers wait
            for each in batch:
                if not each.answer.done():
                    each.answer.set_exception(error)
        finally:
            with _logged():
                self._metrics.batch(len(batch), batch[0].since_s, begun_s, loop.time())
