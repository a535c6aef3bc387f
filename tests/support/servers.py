"""Servers on loopback: a hostile one, a shop, and a receiver of traces."""

import asyncio
import json
import ssl
import threading
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from catalog.fetching.connections import FetchLimits

Behavior = Callable[[asyncio.StreamWriter], Awaitable[None]]


class HostileServer:
    def __init__(self) -> None:
        self.port = 0
        self.requests: list[str] = []
        self.connections = 0
        self._behaviors: dict[str, Behavior] = {}

    def url(self, path: str, host: str = "shop.test", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    def behave(self, path: str, behavior: Behavior) -> str:
        self._behaviors[path] = behavior
        return self.url(path)

    def answer(self, path: str, body: bytes = b"", status: str = "200 OK", **headers: str) -> str:
        """Answer with a body; `Content_Length="9"` sets a header, Content-Length is right unless set."""
        fields = {"Content-Length": str(len(body))} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return self.raw(path, f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body)

    def redirect(self, path: str, target: str, status: str = "302 Found") -> str:
        return self.answer(path, status=status, Location=target)

    def raw(self, path: str, data: bytes) -> str:
        async def send(writer: asyncio.StreamWriter) -> None:
            writer.write(data)
            await writer.drain()

        return self.behave(path, send)

    def endless(self, path: str, head: bytes, more: bytes, pause_s: float = 0.0) -> str:
        async def send(writer: asyncio.StreamWriter) -> None:
            writer.write(head)
            for _ in range(100_000):
                writer.write(more)
                await writer.drain()
                await asyncio.sleep(pause_s)

        return self.behave(path, send)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            self.requests.append(head)
            await self._behaviors[head.split(" ")[1]](writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def hostile_server(tls: ssl.SSLContext | None = None) -> AsyncIterator[HostileServer]:
    server = HostileServer()
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(server.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listener = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


TOKEN = "a-token-for-the-shop"


@dataclass
class Shop:
    """What the server has, and who came; `failures` are statuses and headers given before the real answer."""

    port: int = 0
    images: dict[str, tuple[bytes, str | None]] = field(default_factory=dict)
    items: list[dict[str, Any]] = field(default_factory=list)
    paging: str = "number"
    failures: dict[str, list[tuple[int, dict[str, str]]]] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)
    same_page: bool = False

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    @property
    def limits(self) -> FetchLimits:
        # On a machine with much else to do, even this server may take long to answer.
        return FetchLimits.model_validate(
            {"allowed_networks": ["127.0.0.1/32"], "ports": [self.port], "timeout_s": 60}
        )

    def add(self, name: str, data: bytes, etag: str | None = '"1"') -> str:
        self.images[f"/{name}"] = (data, etag)
        return self.url(f"/{name}")

    def count(self, status: int, prefix: str = "/") -> int:
        return sum(
            n for (path, code), n in self.answers.items() if code == status and path.startswith(prefix)
        )

    def reply(self, target: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        parts = urlsplit(target)
        failures = self.failures.get(target) or self.failures.get(parts.path)
        if failures:
            status, extra = failures.pop(0)
            return status, extra, b""
        if parts.path == "/items":
            return self._page(parse_qs(parts.query), headers)
        if parts.path not in self.images:
            return 404, {}, b""
        data, etag = self.images[parts.path]
        if etag is not None and headers.get("If-None-Match") == etag:
            return 304, {"ETag": etag}, b""
        return 200, {} if etag is None else {"ETag": etag}, data

    def _page(
        self, query: dict[str, list[str]], headers: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        if headers.get("Authorization") != f"Bearer {TOKEN}":
            return 401, {}, b""
        size = int(query.get("page_size", ["2"])[0])
        name = {"number": "page", "link": "from", "cursor": "cursor"}[self.paging]
        first = {"number": "1", "link": "0", "cursor": "c0"}[self.paging]
        place = query.get(name, [first])[0]
        begin = (int(place) - 1) * size if self.paging == "number" else int(place.removeprefix("c"))
        if self.same_page:
            begin = 0
        body: dict[str, Any] = {"items": self.items[begin : begin + size], "total": len(self.items)}
        if self.paging != "number" and begin + size < len(self.items):
            link = f"/items?page_size={size}&from={begin + size}"
            body["next"] = link if self.paging == "link" else f"c{begin + size}"
        return 200, {}, json.dumps(body).encode()


@contextmanager
def shop_server() -> Iterator[Shop]:
    shop = Shop()

    class Requests(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with shop.lock:
                shop.requests.append((self.path, dict(self.headers)))
                status, headers, body = shop.reply(self.path, dict(self.headers))
                shop.answers[urlsplit(self.path).path, status] += 1
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status != 304:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            """Tests count requests instead."""

    with _listening(Requests) as shop.port:
        yield shop


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    """As many as come at once: with five, the default, others are refused or wait a second."""


@contextmanager
def _listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """Answer requests on a free port of loopback; yields it."""
    server = _Server(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class TraceReceiver:
    """Spans by the trace that they belong to."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._spans: dict[str, list[Span]] = defaultdict(list)
        self._lock = threading.Lock()

    def take(self, body: bytes) -> None:
        """Keep what was sent."""
        request = ExportTraceServiceRequest.FromString(body)
        with self._lock:
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        self._spans[span.trace_id.hex()].append(span)

    def spans(self, trace_id: str) -> list[Span]:
        """Return what has come of a trace."""
        with self._lock:
            return list(self._spans[trace_id])

    @property
    def traces(self) -> set[str]:
        """The traces that spans have come of."""
        with self._lock:
            return {trace for trace, spans in self._spans.items() if spans}


@contextmanager
def trace_receiver() -> Iterator[TraceReceiver]:
    """Listen on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            receiver.take(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with _listening(Handler) as port:
        receiver = TraceReceiver(f"http://127.0.0.1:{port}/v1/traces")
        yield receiver
