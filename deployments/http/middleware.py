"""ASGI middleware for every request: id, admission control, deadline, body size, HEAD and OPTIONS."""

import asyncio
import math
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from statistics import median

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import DeadlineExceeded, InputTooLarge, InvalidInput, Overloaded, VitrineError
from deployments.http.errors import GATEWAY_HEADER, NOT_CACHED, answer
from deployments.observability.telemetry import as_request, id_headers, new_request_id

_CLEAN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class HttpMiddleware:
    """Base class of middleware for HTTP requests; other ASGI scopes pass through unchanged."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an HTTP request; pass on any other scope."""
        await (self.handle if scope["type"] == "http" else self._app)(scope, receive, send)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or pass it on."""
        raise NotImplementedError


class RequestId(HttpMiddleware):
    """Gives each request an id: the caller's X-Request-ID if it is valid, else a new one."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; add the gateway's mark, the id and by default `no-store` to the answer."""
        sent = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        request_id = sent if _CLEAN_ID.fullmatch(sent) else new_request_id()
        scope.setdefault("state", {})["request_id"] = request_id
        own = {GATEWAY_HEADER: "1", **id_headers(request_id)}
        headers = [(name.lower().encode(), value.encode()) for name, value in own.items()]

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *headers]}
                # Caches do not know X-API-Key, and some keep answers without cache headers for minutes. Health
                # checks must not be cached either.
                MutableHeaders(scope=message).setdefault(*NOT_CACHED)
            await send(message)

        with as_request(request_id):
            await self._app(scope, receive, send_with_id)


FIRST_SEARCHES = 16
"""Limit of searches in flight at the start, and again when the limit was not reached for `FORGET_S`."""
LEAST_SEARCHES = 1
"""Smallest limit. Here each search runs alone, so a lasting change of its time is measured."""
SEARCHES_A_ROUND = 8
"""Answers between two adjustments. Before the first adjustment, as many searches must have run alone."""
REMEMBERED_TIMES = 64
FORGET_S = 60.0


@dataclass(frozen=True, slots=True)
class Entry:
    """A search in flight: its start, its number, and whether it started alone."""

    began: float
    number: int
    alone: bool


class SearchLimit:
    """Adaptive limit of searches in flight: `slowdown` bounds their time, as a multiple of that of a search alone.

    Requests in flight = throughput × time (Little's law). The throughput of a busy replica is fixed, so the number
    of requests in flight determines their time.

    The limit changes after each round of answers in which it was reached. If the round's median time is too long,
    the limit is divided by the excess, at most by two. Otherwise it grows by one (additive increase, multiplicative
    decrease: Chiu and Jain, 1989).

    The time of a search alone is the median of the last searches that ran alone, so it adapts to models and
    machines. A limit that is not reached does not change, so a few slow searches are never refused.
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
        """Admit a search; return None if the limit is reached."""
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

    def leave(self, entry: Entry, answered: bool = True) -> None:
        """End a search that `enter` has admitted.

        The time of a failed search counts only if it was too long, for example at its deadline. A search that is
        refused early, for example for its key, says nothing about the time of searches.
        """
        took_s = self._clock() - entry.began
        self._in_work -= 1
        if not answered and not self._is_too_long(took_s):
            return
        if answered and entry.alone and entry.number == self._entered:
            self._alone_s.append(took_s)
        self._round_s.append(took_s)
        if len(self._round_s) >= SEARCHES_A_ROUND:
            if self._reached and len(self._alone_s) >= SEARCHES_A_ROUND:
                self._adjust(median(self._round_s) / (self._slowdown * median(self._alone_s)))
            self._round_s, self._reached = [], False

    def _is_too_long(self, took_s: float) -> bool:
        return bool(self._alone_s) and took_s > self._slowdown * median(self._alone_s)

    def _adjust(self, too_long: float) -> None:
        if too_long > 1:
            shrunk = round(self.limit / min(too_long, 2.0))
            self.limit = max(LEAST_SEARCHES, min(self.limit - 1, shrunk))
        else:
            self.limit = min(self._most, self.limit + 1)


TIMEOUT_HEADER = "X-Request-Timeout-Seconds"
MARGIN_S = 0.1
"""Time by which the gateway answers before Serve, which reads the same header but answers in its own shape. It is
at most half of the caller's time."""

_ends_at: ContextVar[float | None] = ContextVar("request_ends_at", default=None)


def within_deadline(limit_s: float) -> float:
    """Return the time limit, or the time left of the current request if that is shorter, in seconds.

    This also works in the threads of `asyncio.to_thread`.
    """
    ends_at = _ends_at.get()
    if ends_at is None:
        return limit_s
    return max(0.0, min(limit_s, ends_at - time.monotonic()))


def request_ends_at() -> float | None:
    """Return the deadline of the current request as a time of `time.monotonic`, to pass it to a thread."""
    left_s = within_deadline(math.inf)
    return None if math.isinf(left_s) else time.monotonic() + left_s


@contextmanager
def ending_at(ends_at: float | None) -> Iterator[None]:
    """Set the deadline of this block and of all work that it starts, as a time of `time.monotonic`.

    None removes the deadline, for work that continues after the answer.
    """
    token = _ends_at.set(ends_at)
    try:
        yield
    finally:
        _ends_at.reset(token)


class Deadline(HttpMiddleware):
    """Ends every request within the caller's time limit or the configured one, whichever is shorter."""

    def __init__(self, app: ASGIApp, limit_s: float) -> None:
        super().__init__(app)
        self._limit_s = limit_s

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; at its deadline, cancel its work and answer 503."""
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
                # An answer that has begun cannot be replaced. The server then aborts it.
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
"""Ending of a further path of searches. Searches have an adaptive limit. Other requests have only `max_in_flight`,
because embeddings are faster in batches."""


class Admission(HttpMiddleware):
    """Admission control: immediately refuses requests that would only wait.

    Serve limits its queues too, but answers in its own shape, and only after the queue is full.
    """

    def __init__(self, app: ASGIApp, max_in_flight: int, search_slowdown: float) -> None:
        super().__init__(app)
        self._free = max_in_flight
        self._searches = SearchLimit(search_slowdown, max_in_flight)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 503."""
        path, entry, answered = scope["path"], None, False
        if path.startswith(HEALTH):
            await self._app(scope, receive, send)
            return
        is_search = path in SEARCHES or path.endswith(SIMILAR)
        if self._free <= 0 or (is_search and (entry := self._searches.enter()) is None):
            error = Overloaded("as many requests as possible are in work; try again shortly")
            await answer(error, scope["state"]["request_id"])(scope, receive, send)
            return

        async def send_and_note(message: Message) -> None:
            nonlocal answered
            answered = answered or (message["type"] == "http.response.start" and message["status"] < 300)
            await send(message)

        self._free -= 1
        try:
            await self._app(scope, receive, send_and_note)
        finally:
            self._free += 1
            if entry is not None:
                self._searches.leave(entry, answered)


class BodyLimit(HttpMiddleware):
    """Refuses bodies above a number of bytes, by their declared length or as they arrive."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        super().__init__(app)
        self._max_bytes = max_bytes

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; answer 413 if its body exceeds the limit."""
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._max_bytes:
            await answer(self._error(), scope["state"]["request_id"])(scope, receive, send)
            return
        received = 0

        async def receive_within_limit() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise self._error()
            return message

        await self._app(scope, receive_within_limit, send)

    def _error(self) -> InputTooLarge:
        return InputTooLarge(f"the request body is larger than the limit of {self._max_bytes} bytes")


class Methods(HttpMiddleware):
    """Answers HEAD like GET without a body (RFC 9110, 9.3.2); lists a path's methods for OPTIONS and 405."""

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        super().__init__(app)
        self._routes = routes

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; routes see GET in place of HEAD."""
        if scope["method"] == "OPTIONS" and (allowed := self._allowed(scope)):
            await Response(status_code=204, headers={"Allow": allowed})(scope, receive, send)
            return
        is_head = scope["method"] == "HEAD"

        async def send_in_form(message: Message) -> None:
            is_405 = message["type"] == "http.response.start" and message["status"] == 405
            if is_405 and (allowed := self._allowed(scope)):
                MutableHeaders(scope=message)["Allow"] = allowed
            if message["type"] == "http.response.body" and is_head:
                message = {**message, "body": b""}
            await send(message)

        await self._app({**scope, "method": "GET"} if is_head else scope, receive, send_in_form)

    def _allowed(self, scope: Scope) -> str:
        """List the methods of all routes with this path; empty if there are none."""
        methods: set[str] = set()
        for route in self._routes:
            if isinstance(route, Route) and route.matches(scope)[0] != Match.NONE:
                methods |= route.methods or set()
        if "GET" in methods:
            methods.add("HEAD")
        return ", ".join(sorted(methods | {"OPTIONS"})) if methods else ""
