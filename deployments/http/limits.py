"""Limits on requests: rate limits, admission control with an adaptive search limit, and deadlines."""

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
"""Limit of searches in flight at the start, and after `FORGET_S` in which the limit was not reached."""
LEAST_SEARCHES = 1
"""At this limit each search is alone, so its time is measured anew when it has changed for good."""
SEARCHES_A_ROUND = 8
"""Answers between two adjustments. As many searches must have been alone before the first one."""
REMEMBERED_TIMES = 64
FORGET_S = 60.0


@dataclass(frozen=True, slots=True)
class Entry:
    """A search in flight: its start, its number, and whether no other was in flight then."""

    began: float
    number: int
    alone: bool


class SearchLimit:
    """Adaptive limit of searches in flight, which keeps their time near that of one search alone.

    Requests in flight = rate × time (Little's law). The rate of a busy replica is fixed, so the number of
    requests sets their time.

    The limit changes after each round of answers in which it was reached. It shrinks by the factor that the
    round's median is too long, or grows by one (additive increase, multiplicative decrease: Chiu and Jain, 1989).

    The time of one search alone is the median of the last ones that were, so it follows models and machines. A
    limit that is not reached stays as it is, so slow searches are not refused as long as they are few.
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
        """Admit a search; returns None when the limit is reached."""
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
        """End a search that `enter` has admitted."""
        took_s = self._clock() - entry.began
        self._in_work -= 1
        if entry.alone and entry.number == self._entered:
            self._alone_s.append(took_s)
        self._round_s.append(took_s)
        if len(self._round_s) >= SEARCHES_A_ROUND:
            if self._reached and len(self._alone_s) >= SEARCHES_A_ROUND:
                self._adjust(median(self._round_s) / (self._slowdown * median(self._alone_s)))
            self._round_s, self._reached = [], False

    def _adjust(self, too_long: float) -> None:
        if too_long > 1:
            shrunk = round(self.limit / min(too_long, 2.0))
            self.limit = max(LEAST_SEARCHES, min(self.limit - 1, shrunk))
        else:
            self.limit = min(self._most, self.limit + 1)


_FEW_KEYS = 1024
"""Keys that are kept without a check for full buckets."""


class RateLimiter:
    """A token bucket for each key, in memory: `burst` tokens, refilled at a rate per second.

    It is the generic cell rate algorithm (ITU-T I.371), with one number per key: the time at which its bucket
    will be full again. Keys with a full bucket are dropped, so memory is bounded by twice the keys of the last
    `burst / requests_per_s` seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._full_at: dict[str, float] = {}
        self._prune_at = _FEW_KEYS

    def __len__(self) -> int:
        """Count the keys in memory."""
        return len(self._full_at)

    def take(self, key_id: str, requests_per_s: float, burst: int) -> None:
        """Take a token from the bucket of a key.

        Raises:
            RateLimited: the bucket is empty; `retry_after_s` is the time until the next token.
        """
        now = self._clock()
        full_at = max(self._full_at.get(key_id, now), now) + 1 / requests_per_s
        wait_s = full_at - now - burst / requests_per_s
        # Tolerates the rounding of floats for a token that is due now.
        if wait_s > 1e-9:
            error = RateLimited(
                f"more than {requests_per_s:g} requests per second, or {burst} at once; slow down"
            )
            error.retry_after_s = wait_s
            raise error
        self._full_at[key_id] = full_at
        if len(self._full_at) > self._prune_at:
            self._full_at = {key: full for key, full in self._full_at.items() if full > now}
            # Doubled, so that a request pays for two keys on average.
            self._prune_at = max(_FEW_KEYS, 2 * len(self._full_at))


TIMEOUT_HEADER = "X-Request-Timeout-Seconds"
MARGIN_S = 0.1
"""Head start over Serve, which reads the same header and answers in its own shape; at most half of the time."""

_ends_at: ContextVar[float | None] = ContextVar("request_ends_at", default=None)


def within_deadline(limit_s: float) -> float:
    """Shorten a time limit to the time left of the current request, in seconds.

    It works in the threads of `asyncio.to_thread` too.
    """
    ends_at = _ends_at.get()
    if ends_at is None:
        return limit_s
    return max(0.0, min(limit_s, ends_at - time.monotonic()))


def request_ends_at() -> float | None:
    """Return the end of the current request as a time of `time.monotonic`, for threads."""
    left_s = within_deadline(math.inf)
    return None if math.isinf(left_s) else time.monotonic() + left_s


@contextmanager
def ending_at(ends_at: float | None) -> Iterator[None]:
    """Bound this block, and all that it starts, by a time of `time.monotonic`.

    None, for work that goes on after the answer, removes the bound.
    """
    token = _ends_at.set(ends_at)
    try:
        yield
    finally:
        _ends_at.reset(token)


class Deadline:
    """Ends every request in the caller's time or the configured one, whichever is shorter."""

    def __init__(self, app: ASGIApp, limit_s: float) -> None:
        self._app = app
        self._limit_s = limit_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; when its time is over, cancel its work and answer 503."""
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
                # An answer that has begun cannot be replaced. The server then cuts it off.
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
"""Prefixes of health checks, which are always admitted: a busy replica is healthy."""

SEARCHES = ("/v1/search", "/v1/compare")
SIMILAR = "/similar"
"""Paths of searches, and their ending. Searches have an adaptive limit; other requests have `max_in_flight` alone,
since embeddings gain from batches."""


OVERLOADED = "as many requests as possible are in work; try again shortly"


class Admission:
    """Admission control: refuses requests at once that would only wait.

    Serve limits its queues too, but answers in its own shape, and only after the queue is full.
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
