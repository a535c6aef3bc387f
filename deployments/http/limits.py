"""Limits on requests: rate limits, admission control, the adaptive search limit and deadlines."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from statistics import median

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import DeadlineExceeded, InvalidInput, Overloaded, RateLimited, VitrineError
from deployments.http.errors import answer

FIRST_SEARCHES = 16
"""Searches in work at once before anything is known, and again after a quiet while."""
LEAST_SEARCHES = 1
"""Then each search is alone, so that the time of one is learned anew when it has changed for good."""
SEARCHES_A_ROUND = 8
"""Answers between two decisions; so many searches must have been alone before the first."""
REMEMBERED_TIMES = 64
FORGET_S = 60.0


@dataclass(frozen=True, slots=True)
class Entry:
    """A search in work: when it began, its number, and whether no other was in work then."""

    began: float
    number: int
    alone: bool


class SearchLimit:
    """Hold the time of searches near that of one alone while there are more than can be answered.

    Requests in work = rate × time (Little's law), and the rate of a busy replica is what it is, so their
    number sets their time. After each round of answers in which the limit was reached, it shrinks by the
    factor that the round's median is too long, or grows by one (additive increase, multiplicative
    decrease: Chiu and Jain, 1989). The time of one alone is the median of the last that were, so it
    follows models and machines. Slow searches refuse nobody as long as they are few: a limit that is not
    reached stays as it is.
    """

    def __init__(self, slowdown: float, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._slowdown = slowdown
        self._first, self._most = min(FIRST_SEARCHES, most), most
        self._clock = clock
        self.limit = self._first
        self._in_work = 0
        self._entered = 0
        self._alone_s = deque[float](maxlen=REMEMBERED_TIMES)
        self._round_s: list[float] = []
        self._reached = False
        self._reached_at = float("-inf")

    def enter(self) -> Entry | None:
        """Count a search in, or return None when there are enough in work."""
        now = self._clock()
        if self._in_work + 1 >= self.limit:
            if now - self._reached_at > FORGET_S:
                self.limit = self._first
            self._reached, self._reached_at = True, now
        if self._in_work >= self.limit:
            return None
        self._in_work += 1
        self._entered += 1
        return Entry(now, self._entered, alone=self._in_work == 1)

    def leave(self, entry: Entry) -> None:
        """Count a search out that `enter` has let in."""
        took_s = self._clock() - entry.began
        self._in_work -= 1
        if entry.alone and entry.number == self._entered:
            self._alone_s.append(took_s)
        self._round_s.append(took_s)
        if len(self._round_s) >= SEARCHES_A_ROUND:
            if self._reached and len(self._alone_s) >= SEARCHES_A_ROUND:
                self._decide(median(self._round_s) / (self._slowdown * median(self._alone_s)))
            self._round_s, self._reached = [], False

    def _decide(self, too_long: float) -> None:
        if too_long > 1:
            shrunk = round(self.limit / min(too_long, 2.0))
            self.limit = max(LEAST_SEARCHES, min(self.limit - 1, shrunk))
        else:
            self.limit = min(self._most, self.limit + 1)


_FEW_KEYS = 1024
"""So many keys are remembered without a look at which are needed."""


class RateLimiter:
    """A token bucket for each key, in memory: `burst` tokens, refilled at a rate per second.

    It is kept as the generic cell rate algorithm (ITU-T I.371): per key one number, the time at which its
    bucket will be full again. Keys whose bucket is full need no memory, so what is kept is bounded by twice
    the keys that came within the last `burst / requests_per_s` seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._full_at: dict[str, float] = {}
        self._sweep_at = _FEW_KEYS

    def __len__(self) -> int:
        """Count the keys that are remembered."""
        return len(self._full_at)

    def take(self, key_id: str, requests_per_s: float, burst: int) -> None:
        """Take a token from the bucket of a key.

        Raises:
            RateLimited: the bucket is empty; `retry_after_s` says when the next token is there.
        """
        now = self._clock()
        full_at = max(self._full_at.get(key_id, now), now) + 1 / requests_per_s
        wait_s = full_at - now - burst / requests_per_s
        # A token that is due now must not be refused for the last bit of a sum of floats.
        if wait_s > 1e-9:
            error = RateLimited(
                f"more than {requests_per_s:g} requests per second, or {burst} at once; slow down"
            )
            error.retry_after_s = wait_s
            raise error
        self._full_at[key_id] = full_at
        if len(self._full_at) > self._sweep_at:
            self._full_at = {key: full for key, full in self._full_at.items() if full > now}
            # As many again must come first, so that a request pays for two keys on the average.
            self._sweep_at = max(_FEW_KEYS, 2 * len(self._full_at))


TIMEOUT_HEADER = "X-Request-Timeout-Seconds"
MARGIN_S = 0.1
"""Serve reads the same header and answers in a form of its own, so ours has to be sooner: by this, or by half of
a time that is shorter than twice this."""

_ends_at: ContextVar[float | None] = ContextVar("request_ends_at", default=None)


def within_deadline(limit_s: float) -> float:
    """Shorten a time limit to what is left of the request that is being answered, in seconds.

    It may be asked in the threads of `asyncio.to_thread` too.
    """
    ends_at = _ends_at.get()
    if ends_at is None:
        return limit_s
    return max(0.0, min(limit_s, ends_at - time.monotonic()))


def request_ends_at() -> float | None:
    """Return when the request that is being answered must end, as `time.monotonic` counts, for threads."""
    left_s = within_deadline(math.inf)
    return None if math.isinf(left_s) else time.monotonic() + left_s


@contextmanager
def ending_at(ends_at: float | None) -> Iterator[None]:
    """Bound what is done in this block, and all that it starts, by a time of `time.monotonic`; None: unbounded.

    None is for work that goes on after the answer.
    """
    token = _ends_at.set(ends_at)
    try:
        yield
    finally:
        _ends_at.reset(token)


class Deadline:
    """End every request in time, the caller's or the configured one, whichever is shorter."""

    def __init__(self, app: ASGIApp, limit_s: float) -> None:
        self._app = app
        self._limit_s = limit_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; 503 when its time is over, and what was done for it is canceled."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            limit_s = self._limit(Headers(scope=scope).get(TIMEOUT_HEADER))
            await self._run(limit_s, scope, receive, send)
        except VitrineError as error:
            await answer(error, scope["state"]["request_id"])(scope, receive, send)

    async def _run(self, limit_s: float, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def send_and_note(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        with ending_at(time.monotonic() + limit_s):
            try:
                async with asyncio.timeout(limit_s) as timeout:
                    await self._app(scope, receive, send_and_note)
            except TimeoutError:
                # An answer that has begun cannot be replaced; the server then cuts it off.
                if begun or not timeout.expired():
                    raise
                raise DeadlineExceeded(f"the request did not end within {limit_s:.3g} s") from None

    def _limit(self, asked: str | None) -> float:
        if asked is None:
            return self._limit_s
        try:
            asked_s = float(asked)
        except ValueError:
            asked_s = math.nan
        if not asked_s > 0:
            raise InvalidInput("give a number of seconds above 0").at(TIMEOUT_HEADER)
        return min(self._limit_s, asked_s - min(MARGIN_S, asked_s / 2))


HEALTH = ("/health/", "/.well-known/")
"""Below these are health checks. Checks are let in always: a replica that is busy is not ill."""

SEARCHES = ("/v1/search", "/v1/compare")
SIMILAR = "/similar"
"""What shoppers wait for: these paths, and those that end so. They have a limit of their own, which follows
the time that they take; what makes batches, as embeddings do, is let in up to the bound of all."""


OVERLOADED = "as many requests as possible are in work; try again shortly"


class Admission:
    """Refuse at once what would only wait: callers learn within milliseconds that they should come again.

    Serve bounds its own queues too, but answers in a form of its own, and only after the queue is full.
    """

    def __init__(self, app: ASGIApp, max_in_flight: int, search_slowdown: float) -> None:
        self._app = app
        self._free = max_in_flight
        self._searches = SearchLimit(search_slowdown, max_in_flight)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 503."""
        if scope["type"] != "http" or scope["path"].startswith(HEALTH):
            await self._app(scope, receive, send)
        elif self._free <= 0:
            await _refusal(scope)(scope, receive, send)
        elif not _is_search(scope["path"]):
            await self._work(scope, receive, send)
        elif (entry := self._searches.enter()) is None:
            await _refusal(scope)(scope, receive, send)
        else:
            try:
                await self._work(scope, receive, send)
            finally:
                self._searches.leave(entry)

    async def _work(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._free -= 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._free += 1


def _is_search(path: str) -> bool:
    return path in SEARCHES or path.endswith(SIMILAR)


def _refusal(scope: Scope) -> JSONResponse:
    return answer(Overloaded(OVERLOADED), scope["state"]["request_id"])
