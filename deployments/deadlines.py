"""A deadline for every request, known to all that is done for it."""

import asyncio
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import DeadlineExceeded, InvalidInput, VitrineError
from deployments.errors import answer

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
        """Pass the request on; 503 when its time is over, and what was done for it is cancelled."""
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
