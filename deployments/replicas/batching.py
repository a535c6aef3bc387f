"""Batches that gather across requests, and the answers of a request whose inputs go through them."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, ParamSpec, TypeVar, cast

from core.concurrency import start_shared
from core.errors import ModelUnavailable, VitrineError
from deployments.observability.metrics import BATCH_SIZE, ERRORS, STAGE_SECONDS
from deployments.observability.telemetry import error_type, past_span

Input = TypeVar("Input")
Output = TypeVar("Output")
P = ParamSpec("P")
T = TypeVar("T")
AT_ONCE = 2
"""Batches under way: one in the model, and behind it one that is full already."""
RETURN_SHARE = 1 / 8
"""Share of the last batch's time for which a batch of less than half its size waits for the callers that were just
answered. Else they and those who waited meanwhile remain two groups: of 16 callers, 1 and 15 took turns."""


class Answers(Generic[Output]):
    """Answers to the inputs of one request, with one future for all of them. Belongs to its event loop."""

    def __init__(self, count: int) -> None:
        """Wait for so many answers."""
        loop = asyncio.get_running_loop()
        self._values: list[Output | None] = [None] * count
        self._left = count
        self._all, self._asked_s = loop.create_future(), loop.time()
        self.works: list[Work[Any, Output]] = []
        """What the answers come from, of inputs that were not answered at once."""
        self.is_wanted = True
        """False once the caller has gone."""

    def set(self, place: int, answer: Output) -> None:
        """Answer the input at this place."""
        self._values[place] = answer
        self._left -= 1
        if not self._left and not self._all.done():
            self._all.set_result(None)

    async def all(self, model: str) -> list[Output]:
        """Return all answers in input order, and make the spans of their batches in the caller's context.

        A span lasts from the first input to the last: one a request says the same as one an input. It begins with
        the request, where that joined the work of another.
        """
        try:
            if self._left:
                await self._all
            return cast(list[Output], self._values)
        finally:
            now_s = asyncio.get_running_loop().time()
            begun = [work for work in self.works if work.begun_s <= now_s]
            if begun:
                since_s = max(self._asked_s, min(work.since_s for work in begun))
                begun_s = max(self._asked_s, min(work.begun_s for work in begun))
                past_span("queue", since_s, begun_s, now_s, **{"vitrine.model": model})
                past_span("forward", begun_s, now_s, now_s, **{"vitrine.model": model})


@dataclass(eq=False, slots=True)
class Work(Generic[Input, Output]):
    """An input, and the places of the answers that wait for it; the times are of the loop's clock."""

    item: Input = field(repr=False)
    waiters: list[tuple[Answers[Output], int]] = field(default_factory=list)
    key: bytes | None = None
    """Hash of the version and the content, where the answer is shared."""
    since_s: float = math.inf
    begun_s: float = math.inf

    def answer(self, answer: Output) -> None:
        """Answer all who wait, once, and let go of the input, whose pixels the request would hold to its end."""
        # No cycle with the answers may be left: the garbage collector would free the pixels much later.
        waiters, self.waiters = self.waiters, []
        self.let_go()
        for answers, place in waiters:
            answers.set(place, answer)

    def let_go(self) -> None:
        """Free the input: the traceback of a request that was canceled may hold the work for long."""
        with suppress(AttributeError):
            del self.item


def answer_waiters(works: Sequence[Work[Any, Output]], answers: Sequence[Output]) -> None:
    """Answer all who wait for each work."""
    for work, answer in zip(works, answers, strict=True):
        work.answer(answer)


class ModelThread(ThreadPoolExecutor):
    """The one thread that owns a model."""

    def __init__(self) -> None:
        super().__init__(1, thread_name_prefix="model")
        self._begun_s: float | None = None

    @property
    def busy_s(self) -> float:
        """Seconds for which it has been at what it does now; 0 while it is idle."""
        # Read once, for the thread may end its work meanwhile.
        begun_s = self._begun_s
        return 0.0 if begun_s is None else time.monotonic() - begun_s

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have the thread call a function after those that it was given before."""

        def timed() -> T:
            self._begun_s = time.monotonic()
            try:
                return fn(*args, **kwargs)
            finally:
                self._begun_s = None

        return super().submit(timed)


class Batches(Generic[Input, Output]):
    """Runs a function on batches of inputs that arrive one by one or in groups.

    Inputs that come while the function is busy make up the next batch, up to the largest size. Serve's own
    `serve.batch` closes a batch a fixed time after its first input, however long that batch must then wait. Under
    load its batches stay small, and small batches cost two to three times as much per image.

    While the function is idle, a batch waits for inputs that are known to be on their way, and right after a much
    larger batch for its callers, who may ask again. While it is busy, a full batch has nothing to wait for: it is
    gathered, and begins as soon as the batch before it ends.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Input]], Any],
        kind: Literal["image", "text", "caption", "match"],
        max_size: int,
        *,
        thread: Executor,
        wait_s: float,
        model: str,
        settle: Callable[[Sequence[Work[Input, Any]], Sequence[Any]], None] = answer_waiters,
        gather: Callable[[Sequence[Input]], Any] | None = None,
        gatherer: Executor | None = None,
        reader: Executor | None = None,
    ) -> None:
        """`run` answers a batch in order, in `thread`; while it is idle, an input waits at most `wait_s` for those
        expected.

        With a `reader`, `run` only begins a batch, and returns what waits for the answers there. So a full batch
        begins while the one before is in the device.

        `settle` gets a batch and its answers; what `run` raises is the answer to all of its batch. `gather` makes a
        batch into what `run` takes as well, in `gatherer`, while `run` is busy with the batch before.
        """
        self._run, self._thread, self._settle = run, thread, settle
        self._max_size, self._wait_s = max_size, wait_s
        self._gather, self._gatherer, self._reader = gather, gatherer, reader
        self._model, self._kind = model, kind
        self._queue: deque[Work[Input, Any]] = deque()
        self._expected = 0
        self._ended_s, self._last_s, self._last_size = -math.inf, 0.0, 0
        """When the last batch ended, how long it took, and how many inputs it had."""
        self._changed = asyncio.Event()
        self._work: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()
        self.failed_in_a_row = 0
        """Last batches in which the model answered no input. What is wrong with an input does not count."""

    def expect(self, count: int) -> None:
        """Have batches wait for so many inputs, each of which `add` reports when it comes or turns out not to."""
        self._expected += count

    def add(self, works: Sequence[Work[Input, Any]], expected: int = 0) -> None:
        """Queue works, and no longer expect so many."""
        self._expected -= expected
        now_s = asyncio.get_running_loop().time()
        for work in works:
            work.since_s = now_s
            self._queue.append(work)
        self._changed.set()
        if self._queue and (self._work is None or self._work.done()):
            self._work = start_shared(self._run_all())

    async def submit(self, item: Input) -> Output | Exception:
        """Return the function's answer to one input, or what it raised for the batch."""
        answers = Answers[Output | Exception](1)
        work = Work(item, [(answers, 0)])
        answers.works.append(work)
        self.add([work])
        try:
            (answer,) = await answers.all(self._model)
            return answer
        finally:
            work.waiters.clear()

    def _is_full(self) -> bool:
        return len(self._queue) >= self._max_size

    async def _run_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._queue:
            while self._running and not (self._is_full() and len(self._running) < AT_ONCE):
                self._changed.clear()
                await self._changed.wait()
            while not self._is_full() and (until_s := self._waits_until_s()) > loop.time():
                self._changed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(until_s):
                        await self._changed.wait()
            if batch := self._take():
                # Now, for callers that go away let go of their inputs.
                items = [each.item for each in batch]
                run = start_shared(self._run_one(batch, items, is_behind=bool(self._running)))
                self._running.add(run)
                run.add_done_callback(self._ended)

    def _waits_until_s(self) -> float:
        """Return until when the next batch waits for more, by the loop's clock; the function is idle."""
        until_s = -math.inf
        if self._expected:
            until_s = max(self._queue[0].since_s, self._ended_s) + self._wait_s
        if len(self._queue) < self._last_size / 2:
            until_s = max(until_s, self._ended_s + self._last_s * RETURN_SHARE)
        return until_s

    def _ended(self, run: asyncio.Task[None]) -> None:
        self._running.discard(run)
        self._changed.set()

    def _take(self) -> list[Work[Input, Any]]:
        batch: list[Work[Input, Any]] = []
        while self._queue and len(batch) < self._max_size:
            work = self._queue.popleft()
            # The callers may have gone.
            if work.waiters:
                batch.append(work)
        return batch

    async def _run_one(self, batch: list[Work[Input, Any]], items: Sequence[Input], is_behind: bool) -> None:
        loop = asyncio.get_running_loop()

        def run(items: Sequence[Input]) -> Any:
            begun_s = loop.time()
            for each in batch:
                each.begun_s = begun_s
            return self._run(items)

        outcomes: Any
        try:
            if is_behind and self._gather is not None:
                # Where there is no memory for all of it, `run` may split the batch.
                with suppress(Exception):
                    items = await loop.run_in_executor(self._gatherer, self._gather, items)
            outcomes = await loop.run_in_executor(self._thread, run, items)
            if self._reader is not None:
                outcomes = await loop.run_in_executor(self._reader, outcomes)
            if len(outcomes) != len(batch):
                raise ValueError(f"{len(outcomes)} answers to {len(batch)} inputs")
        except Exception as error:  # raised where the callers wait
            outcomes = [error] * len(batch)
        del items
        ended_s = loop.time()
        begun_s = min(batch[0].begun_s, ended_s)
        self._ended_s, self._last_s, self._last_size = ended_s, ended_s - begun_s, len(batch)
        self._settle(batch, outcomes)
        self._record(outcomes, batch[0].since_s, begun_s, ended_s)

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
