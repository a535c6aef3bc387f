"""A light client: connections that send prepared requests as fast as they are answered.

It shares the cores with the service. So it writes prepared bytes, and of answers it reads only the status and length
while it measures.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import numpy as np

_BOUNDARY = b"vitrine-benchmark"
_SETTLE_S = 2.0


def multipart_requests(path: str, images: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Yield requests without end, each in parts, no two with the same image.

    A number after the end of the JPEG makes each file different, with the same pixels.
    """
    opening = (
        b'--%b\r\nContent-Disposition: form-data; name="image"; filename="image.jpg"\r\n'
        b"Content-Type: image/jpeg\r\n\r\n" % _BOUNDARY
    )
    closing = b"\r\n--%b--\r\n" % _BOUNDARY
    for number in itertools.count():
        image, mark = images[number % len(images)], b"%016d" % number
        length = len(opening) + len(image) + len(mark) + len(closing)
        head = (
            b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=%b\r\n"
            b"Content-Length: %d\r\n\r\n" % (path.encode(), _BOUNDARY, length)
        )
        yield [head + opening, image, mark + closing]


async def throughput(port: int, requests: Iterator[list[bytes]], connections: int, seconds: float) -> float:
    """Keep `connections` busy and return the requests answered per second, at a steady state.

    Raises:
        RuntimeError: an answer was not 200.
    """
    return rate(await answers(port, requests, connections, seconds, nullcontext()))


async def answers(
    port: int,
    requests: Iterator[list[bytes]],
    connections: int,
    seconds: float,
    meter: AbstractContextManager[object],
) -> list["Response"]:
    """Keep `connections` busy, and return the answers that came within the window, at a steady state.

    `meter` is entered when the window begins, and left at its end.

    Raises:
        RuntimeError: an answer was not 200.
    """
    answered: list[Response] = []
    made = await _connect(port, requests, connections, answered.append)
    await asyncio.sleep(_SETTLE_S)
    with meter:
        start = time.perf_counter()
        await asyncio.sleep(seconds)
        end = time.perf_counter()
    for transport, _ in made:
        transport.close()
    _check(made)
    return [answer for answer in answered if start <= answer.moment <= end]


def rate(answered: Sequence["Response"]) -> float:
    """Return answers per second, as the slope of a line through all.

    Answers come in batches, and those at either end would count too much otherwise.
    """
    times = np.array([answer.moment for answer in answered])
    return float(np.polyfit(times - times[0], np.arange(len(times)), 1)[0])


async def send_all(port: int, requests: Iterator[list[bytes]], connections: int) -> int:
    """Send all requests, `connections` at a time; returns the number of answers.

    Raises:
        RuntimeError: an answer was not 200.
    """
    # Numbers alone: the bodies of many requests fill the memory.
    answered: list[int] = []
    made = await _connect(port, requests, connections, lambda response: answered.append(response.number))
    await asyncio.gather(*(connection.closed for _, connection in made))
    _check(made)
    return len(answered)


async def _connect(
    port: int, requests: Iterator[list[bytes]], count: int, received: Callable[["Response"], None]
) -> list[tuple[asyncio.Transport, "_Connection"]]:
    loop = asyncio.get_running_loop()
    numbered = enumerate(requests)
    return [
        await loop.create_connection(lambda: _Connection(numbered, received), "127.0.0.1", port)
        for _ in range(count)
    ]


def _check(made: Sequence[tuple[asyncio.Transport, "_Connection"]]) -> None:
    for _, connection in made:
        if connection.problem is not None:
            raise RuntimeError(connection.problem)


class Response(NamedTuple):
    """The body of an answer, when it came, how long it took, and the number of its request, from 0."""

    moment: float
    seconds: float
    number: int
    body: bytes


class _Connection(asyncio.Protocol):
    """Sends the next request when the previous one is answered."""

    def __init__(
        self, requests: Iterator[tuple[int, list[bytes]]], received: Callable[[Response], None]
    ) -> None:
        self._requests, self._on_response = requests, received
        self._received, self._number, self._sent = b"", 0, 0.0
        self.problem: str | None = None
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end or len(body) < _length(head):
            return
        if not head.startswith(b"HTTP/1.1 200"):
            self.problem = self._received[:500].decode(errors="replace")
            self._transport.close()
            return
        now = time.perf_counter()
        self._on_response(Response(now, now - self._sent, self._number, body))
        self._received = b""
        self._send()

    def connection_lost(self, _error: Exception | None) -> None:
        self.closed.set_result(None)

    def _send(self) -> None:
        following = next(self._requests, None)
        if following is None:
            self._transport.close()
        else:
            self._number, request = following
            self._sent = time.perf_counter()
            self._transport.writelines(request)


def _length(head: bytes) -> int:
    lowered = head.lower()
    at = lowered.index(b"content-length:") + len(b"content-length:")
    return int(lowered[at:].partition(b"\r\n")[0])
