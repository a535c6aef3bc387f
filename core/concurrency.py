"""Batches, queues, shared tasks, a weighted semaphore, a circuit breaker, outcomes, caches and thread pools."""

import asyncio
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import partial
from itertools import islice
from threading import Condition
from typing import Any, Generic, ParamSpec, TypeVar

from core.errors import DeadlineExceeded, Overloaded, VitrineError, expected
from core.types import EncoderInput

P = ParamSpec("P")
T = TypeVar("T")
Item = TypeVar("Item")
Outcome = TypeVar("Outcome")
MAX_ENCODE_BYTES = 16 * 2**20
"""Most bytes in one call to an encoder or to Milvus: both take at most 64 MB, and encoding inflates them."""
MAX_READ_BYTES = 64 * 2**20
"""Most bytes of image files that the threads of a job hold at once, where files are only read or copied."""
MAX_ENCODE_INPUTS = 256
"""Most inputs of one call, so that replicas share larger batches and each call meets its deadline."""


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Split items, in order and as they come, into batches of `size`; the last batch may have fewer."""
    ahead = iter(items)
    while batch := list(islice(ahead, size)):
        yield batch


def batched_by_bytes(
    items: Sequence[T],
    size: Callable[[T], int],
    most: int = MAX_ENCODE_INPUTS,
    most_bytes: int | None = None,
) -> Iterator[list[T]]:
    """Split items, in order, into batches of at most `most`, by default for one call to an encoder or to Milvus.

    `size` returns the bytes of an item; a large one goes alone. Files should be read batch by batch, so that no more
    are held at once.
    """
    most_bytes = MAX_ENCODE_BYTES if most_bytes is None else most_bytes
    batch: list[T] = []
    total = 0
    for item in items:
        item_bytes = size(item)
        if batch and (total + item_bytes > most_bytes or len(batch) >= min(most, MAX_ENCODE_INPUTS)):
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += item_bytes
    if batch:
        yield batch


def input_bytes(item: EncoderInput) -> int:
    """Return the bytes of an input in a call."""
    if isinstance(item, str):
        return len(item.encode())
    return len(item if isinstance(item, bytes) else item.data)


def start_shared(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start work that is done for more than the caller; whoever waits for it shields it from its own end.

    A task inherits the context of whoever starts it: the deadline and the id of a request, and what has Serve
    cancel the calls of a request whose caller goes away. This one begins with an empty context.
    """
    return asyncio.create_task(work, context=Context())


@dataclass(eq=False, slots=True)
class _Queued(Generic[Item, Outcome]):
    item: Item
    weight: int
    outcome: asyncio.Future[Outcome | VitrineError]


class GroupQueue(Generic[Item, Outcome]):
    """Runs a function on groups of items that different callers submit.

    Items that arrive while calls are under way make up the next call, so nothing waits for a fixed time. A group
    fits one call to an encoder or to Milvus. An item that is too heavy for that goes alone.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Awaitable[Sequence[Outcome | VitrineError]]],
        doing: str,
        at_once: int = 1,
        weight: Callable[[Item], int] = lambda _: 0,
    ) -> None:
        """`run` answers a group in order; an error that it raises is the outcome of every item.

        At most `at_once` calls are under way. `weight` returns the bytes of an item. `doing` says what failed where
        an error is not ours.
        """
        self._run, self._doing, self._at_once, self._weight = run, doing, at_once, weight
        self._waiting: dict[_Queued[Item, Outcome], None] = {}
        self._workers: set[asyncio.Task[None]] = set()

    async def submit(
        self, items: Sequence[Item], begin_within_s: float | None = None
    ) -> list[Outcome | VitrineError]:
        """Return the outcomes in order; each item succeeds or fails alone.

        Items whose call has not begun within `begin_within_s` are dropped: their outcome is DeadlineExceeded. So
        are those of a caller that goes away.
        """
        loop = asyncio.get_running_loop()
        queued = [_Queued[Item, Outcome](item, self._weight(item), loop.create_future()) for item in items]
        self._waiting.update(dict.fromkeys(queued))
        for _ in range(min(self._at_once - len(self._workers), len(queued))):
            # Kept in a set, for the event loop keeps no task alive.
            self._workers.add(start_shared(self._work()))
        timer = None if begin_within_s is None else loop.call_later(begin_within_s, self._drop, queued)
        try:
            return await asyncio.gather(*(each.outcome for each in queued))
        finally:
            if timer is not None:
                timer.cancel()
            for each in queued:
                self._waiting.pop(each, None)

    def _drop(self, queued: Sequence[_Queued[Item, Outcome]]) -> None:
        for each in queued:
            # What a call has begun with is no longer waiting.
            if each in self._waiting:
                del self._waiting[each]
                if not each.outcome.done():
                    each.outcome.set_result(DeadlineExceeded(f"{self._doing} has not begun in time"))

    async def _work(self) -> None:
        worker = asyncio.current_task()
        assert worker is not None
        try:
            while group := self._next():
                for each, outcome in await self._outcomes(group):
                    if not each.outcome.done():
                        each.outcome.set_result(outcome)
        finally:
            # Here and not in a callback: what is submitted between the last look and a callback would wait for a
            # worker that has ended.
            self._workers.discard(worker)

    async def _outcomes(
        self, group: Sequence[_Queued[Item, Outcome]]
    ) -> list[tuple[_Queued[Item, Outcome], Outcome | VitrineError]]:
        try:
            return list(zip(group, await self._run([each.item for each in group]), strict=True))
        except Exception as error:
            failure = expected(error, self._doing)
            return [(each, failure) for each in group]
        except asyncio.CancelledError:
            for each in group:
                each.outcome.cancel()
            worker = asyncio.current_task()
            if worker is not None and worker.cancelling():
                raise
            # Something that the call waited for was canceled. The next group is spared.
            return []

    def _next(self) -> list[_Queued[Item, Outcome]]:
        group: list[_Queued[Item, Outcome]] = []
        weight = 0
        for each in self._waiting:
            weight += each.weight
            if group and (weight > MAX_ENCODE_BYTES or len(group) == MAX_ENCODE_INPUTS):
                break
            group.append(each)
        for each in group:
            del self._waiting[each]
        return group


class WeightedSemaphore:
    """Threads work side by side as long as the weights that they hold fit a limit; first come, first served.

    Order matters: a heavy piece of work would never begin if light ones could pass it. Whoever holds a
    weight must not ask for another one.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._waiting = deque[object]()
        self._held = 0

    @contextmanager
    def holding(self, weight: int, limit: int, until: float | None = None) -> Iterator[None]:
        """Wait for room and hold it during this block; a weight above the limit is held alone.

        `until` is a time of `time.monotonic`; None waits as long as it takes.

        Raises:
            Overloaded: there was no room in time.
        """
        turn = object()

        def has_room() -> bool:
            return self._waiting[0] is turn and (self._held == 0 or self._held + weight <= limit)

        timeout_s = None if until is None else max(0.0, until - time.monotonic())
        with self._changed:
            self._waiting.append(turn)
            try:
                if not self._changed.wait_for(has_room, timeout_s):
                    raise Overloaded("too much is in work at once; try again shortly")
                self._held += weight
            finally:
                self._waiting.remove(turn)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._held -= weight
                self._changed.notify_all()


PROBE_PAUSE_S = 0.5
"""Pause between two probes of a member that refuses at once."""


class CircuitBreaker:
    """Spare searches the wait for a member that was just late (Nygard, Release It!, 2007).

    It opens with the first search that waited in vain, and closes when the member answers a probe. One probe at
    a time goes on, which also starts a model that was scaled to zero. It closes too when no search has wanted the
    member since the last probe.
    """

    def __init__(self, probe: Callable[[], Awaitable[object]]) -> None:
        """`probe` returns when the member answers, and raises a VitrineError when it does not."""
        self._probe = probe
        self._probing: asyncio.Task[None] | None = None
        self._wanted = False

    def is_open(self) -> bool:
        """Say whether a search that wants the member should leave it out."""
        self._wanted = True
        return self._probing is not None and not self._probing.done()

    def open(self) -> None:
        """Record that a search waited in vain."""
        if self._probing is None or self._probing.done():
            self._probing = start_shared(self._probe_until_answered())

    async def _probe_until_answered(self) -> None:
        self._wanted = True
        while self._wanted:
            self._wanted = False
            try:
                await self._probe()
                return
            except Exception as error:
                expected(error, "asking whether a member is back")
                await asyncio.sleep(PROBE_PAUSE_S)


async def gather_outcomes(
    work: Mapping[str, Awaitable[T]], what: str
) -> tuple[dict[str, T], dict[str, VitrineError]]:
    """Await all side by side; return the answers and the errors, each by name and in order.

    An error that is not ours is logged with its traceback as a failure of `what`, followed by the name.
    """
    outcomes = await asyncio.gather(*work.values(), return_exceptions=True)
    answered: dict[str, T] = {}
    failed: dict[str, VitrineError] = {}
    for name, outcome in zip(work, outcomes, strict=True):
        if isinstance(outcome, Exception):
            failed[name] = expected(outcome, f"{what} {name}")
        elif isinstance(outcome, BaseException):
            raise outcome
        else:
            answered[name] = outcome
    return answered, failed


THREADS = 64
"""Most blocking calls at once: while Milvus is away, those that wait for it must not keep the database, the image
files and the health checks waiting too."""


def widen_thread_pool() -> None:
    """Give the running event loop a thread pool for calls that wait rather than compute."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, "blocking"))


DECODERS = ThreadPoolExecutor(min(8, os.cpu_count() or 1), "decode")
"""Decode images. Apart, as they wait for each other's pixels: those that wait for I/O must not wait for them."""
BODIES = ThreadPoolExecutor(2, "bodies")
"""Read large bodies, which holds the interpreter's lock: more at once would only keep the event loop waiting."""


async def run_in(pool: ThreadPoolExecutor, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function as `asyncio.to_thread` does, in a pool that bounds how many run at once.

    One that has not begun when its caller goes away never runs.
    """
    work = partial(copy_context().run, function, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(pool, work)


K = TypeVar("K")


class TtlCache(Generic[K, T]):
    """Values by key. One read within the time to live serves all who ask for a key.

    A failed read is not kept: it reaches those alone who wait for it. A caller that goes away does not cancel it.
    """

    def __init__(self, read: Callable[[K], Awaitable[T]], ttl_s: float, share: float = 0.0) -> None:
        """Keep values for `ttl_s`, and at least `share` times as long as reading took; 0 s keeps none."""
        self._read = read
        self._ttl_s = ttl_s
        self._share = share
        self._reads: dict[K, asyncio.Task[T]] = {}
        self._expires_at: dict[K, float] = {}

    async def get(self, key: K) -> T:
        """Return the value; raises what reading it raises."""
        read = self._reads.get(key)
        if read is None or (read.done() and time.monotonic() >= self._expires_at[key]):
            read = self._reads[key] = start_shared(self._fill(key))
        return await asyncio.shield(read)

    async def _fill(self, key: K) -> T:
        started, kept_s = time.monotonic(), 0.0
        try:
            value = await self._read(key)
            if self._ttl_s:
                kept_s = max(self._ttl_s, self._share * (time.monotonic() - started))
            return value
        finally:
            self._expires_at[key] = time.monotonic() + kept_s
