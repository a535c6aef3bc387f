"""Searches over HTTP from a light client: callers without pause, or arrivals at a rate.

It runs in a process of its own. It writes prepared bytes, and reads only the status, the length and, of refusals,
the shape of answers.
"""

import asyncio
import itertools
import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import uvloop

MAX_CONNECTIONS = 1000
_TICK_S = 0.002
_PATIENCE_S = 15.0
_RETRY_AFTER_S = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """One answer: its status (0 for none), the time of its request, and its duration."""

    status: int
    at: float
    ms: float
    in_form: bool


@dataclass(frozen=True, slots=True)
class Offered:
    """Result of a load; `unsent` counts arrivals that found all connections busy."""

    answers: list[Outcome]
    unsent: int

    def times_ms(self, status: int) -> list[float]:
        """Return the durations of answers with this status, in order."""
        return [answer.ms for answer in self.answers if answer.status == status]


def search_requests(**options: object) -> Iterator[bytes]:
    """Yield searches without end, each for another text, so that no cache answers."""
    for number in itertools.count():
        body = json.dumps({"query": f"red thing {number} {number * 7}", **options}).encode()
        head = (
            "POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        yield head.encode() + body


def callers(port: int, options: dict[str, object], count: int, seconds: float) -> Offered:
    """Let `count` callers search, each as soon as it is answered, or a second after a refusal."""
    return uvloop.run(_callers(port, search_requests(**options), count, seconds))


def arrivals(port: int, options: dict[str, object], per_s: float, seconds: float) -> Offered:
    """Let searches arrive at random, `per_s` on average, however long answers take (a Poisson process)."""
    return uvloop.run(_arrivals(port, search_requests(**options), per_s, seconds))


async def _callers(port: int, requests: Iterator[bytes], count: int, seconds: float) -> Offered:
    answers: list[Outcome] = []
    ends_at = time.perf_counter() + seconds

    async def call() -> None:
        connection = await _connect(port)
        while time.perf_counter() < ends_at:
            answers.append(answer := await connection.ask(next(requests)))
            if answer.status == 503:
                await asyncio.sleep(_RETRY_AFTER_S)
            elif answer.status == 0:
                connection = await _connect(port)
        connection.close()

    await asyncio.gather(*(call() for _ in range(count)))
    return Offered(answers, 0)


async def _arrivals(port: int, requests: Iterator[bytes], per_s: float, seconds: float) -> Offered:
    answers: list[Outcome] = []
    free: list[_Connection] = []
    busy: set[asyncio.Task[None]] = set()
    unsent = 0

    async def ask() -> None:
        connection = free.pop() if free else await _connect(port)
        answers.append(answer := await connection.ask(next(requests)))
        if answer.status:
            free.append(connection)

    gaps = random.Random(0)
    due = time.perf_counter()
    ends_at = due + seconds
    while due < ends_at:
        due += gaps.expovariate(per_s)
        while time.perf_counter() < due:
            await asyncio.sleep(_TICK_S)
        if len(busy) >= MAX_CONNECTIONS:
            unsent += 1
            continue
        task = asyncio.create_task(ask())
        busy.add(task)
        task.add_done_callback(busy.discard)
    await asyncio.gather(*busy)
    for connection in free:
        connection.close()
    return Offered(answers, unsent)


async def _connect(port: int) -> "_Connection":
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(_Connection, "127.0.0.1", port)
    return connection


class _Connection(asyncio.Protocol):
    """One connection, with one request at a time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # The transport of uvloop is not of asyncio's class.
        self._transport = cast(asyncio.WriteTransport, transport)
        self._received = b""
        self._answered: Callable[[tuple[int, bool]], None] | None = None

    async def ask(self, request: bytes) -> Outcome:
        """Send the request; a timeout or a closed connection is status 0."""
        answered: asyncio.Future[tuple[int, bool]] = asyncio.get_running_loop().create_future()
        self._received, self._answered = b"", answered.set_result
        at = time.perf_counter()
        self._transport.write(request)
        try:
            status, in_form = await asyncio.wait_for(answered, _PATIENCE_S)
        except TimeoutError:
            self._answered = None
            self.close()
            status, in_form = 0, False
        return Outcome(status, at, (time.perf_counter() - at) * 1e3, in_form)

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end or len(body) < _length(head):
            return
        status = int(head[9:12])
        in_form = status == 200 or (b"retry-after:" in head.lower() and b'"request_id"' in body)
        self._answer(status, in_form)

    def connection_lost(self, _error: Exception | None) -> None:
        self._answer(0, False)

    def _answer(self, status: int, in_form: bool) -> None:
        if self._answered is not None:
            answered, self._answered = self._answered, None
            answered((status, in_form))


def _length(head: bytes) -> int:
    lowered = head.lower()
    at = lowered.index(b"content-length:") + len(b"content-length:")
    return int(lowered[at:].partition(b"\r\n")[0])
