"""A shop on loopback: pictures with etags, a catalogue in pages behind a token, and scripted failures."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from catalog.fetching.config import FetchLimits

TOKEN = "a-token-for-the-shop"


@dataclass
class Shop:
    """What the server has, and who came; `failures` are statuses and headers given before the real answer."""

    port: int = 0
    pictures: dict[str, tuple[bytes, str | None]] = field(default_factory=dict)
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
        return FetchLimits.model_validate({"allowed_networks": ["127.0.0.1/32"], "ports": [self.port]})

    def add(self, name: str, data: bytes, etag: str | None = '"1"') -> str:
        self.pictures[f"/{name}"] = (data, etag)
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
        if parts.path not in self.pictures:
            return 404, {}, b""
        data, etag = self.pictures[parts.path]
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

    server = ThreadingHTTPServer(("127.0.0.1", 0), Requests)
    server.daemon_threads = True
    shop.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield shop
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
