"""HAProxy on the configuration that Serve writes: replicas that die, repeated requests, errors of Serve."""

import os
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
from ray.serve.config import HTTPOptions

from core.errors import DeadlineExceeded, Unavailable
from core.tcp_ports import free_port
from deployments.http import errors
from deployments.http.app import describe
from deployments.proxy.haproxy import (
    GATEWAY_HEADER,
    HAPROXY_SETTINGS,
    LATE,
    REFUSALS,
    REPEATABLE_POSTS,
    UNAVAILABLE,
    write_launcher,
)
from tests.support.children import Child

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
HELD = "/v1/products/held"
NOT_FOUND = "Path '/v1/products/p' not found. Ping http://.../-/routes for available routes."
"""How Serve says that it knows no route."""


def plain(status: int, text: str = NOT_FOUND, **more: str) -> bytes:
    """Make an answer as parts of Serve give it."""
    headers = {"Content_Type": "text/plain", "Content_Length": str(len(text)), "Connection": "close", **more}
    lines = [f"HTTP/1.1 {status} Status", *(f"{name.replace('_', '-')}: {headers[name]}" for name in headers)]
    return "\r\n".join([*lines, "", text]).encode()


@dataclass
class Backend:
    """Takes whole requests; answers the health checks, and the others where it has an `answer`."""

    answer: bytes | None
    taken: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    """Those of the last request, by names in lower case."""
    port: int = 0
    let_go: threading.Event = field(default_factory=threading.Event)
    """Until it is set, requests for HELD get no answer."""

    @contextmanager
    def running(self) -> Iterator["Backend"]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
            thread = threading.Thread(target=self._run, args=(listener,), daemon=True)
            thread.start()
            yield self
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)

    def _run(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            line = self._read(connection)
            is_check = "/-/healthz" in line
            if not is_check:
                self.taken.append(line.rpartition(" ")[0])
            if HELD in line:
                self.let_go.wait(60)
            if answer := ANSWER if is_check else self.answer:
                connection.sendall(answer)

    def _read(self, connection: socket.socket) -> str:
        with connection.makefile("rb") as stream:
            line = stream.readline().decode().strip()
            self.headers = {}
            while header := stream.readline().decode().strip():
                name, _, value = header.partition(":")
                self.headers[name.lower()] = value.strip()
            stream.read(int(self.headers.get("content-length", 0)))
        return line


@dataclass
class Proxied:
    """HAProxy before one backend that dies of every request and, where there is one, another that answers."""

    url: str
    dying: Backend
    sound: Backend | None

    def send(self, method: str, path: str, content: bytes = b"") -> httpx.Response:
        return httpx.request(method, self.url + path, content=content, timeout=20)


@contextmanager
def proxied(
    backends: list[Backend],
    fallback: Backend | None = None,
    routes: bool = True,
    lost: Sequence[ServerConfig] = (),
    **settings: Any,
) -> Iterator[str]:
    """Run HAProxy before these replicas, and Serve's own proxy if there is one; without routes it knows neither.

    `lost` are replicas that nobody answers for. `settings` are those that Serve has for its configuration.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vitrine-")))
        servers = [
            ServerConfig(f"replica-{n}", "127.0.0.1", stack.enter_context(backend.running()).port)
            for n, backend in enumerate(backends)
        ] + [*lost]
        backup = fallback and ServerConfig("proxy", "127.0.0.1", stack.enter_context(fallback.running()).port)
        backend = BackendConfig(
            name="http-gateway", path_prefix="/", servers=servers, app_name="gateway", fallback_server=backup
        )
        port = free_port()
        config = serves_own(folder, port, {"gateway": backend} if routes else {}, **settings)
        haproxy = Child("haproxy", [write_launcher(folder), "-db", "-f", config], cwd=folder)
        try:
            _wait_for(f"http://127.0.0.1:{port}/-/routes")
            yield f"http://127.0.0.1:{port}"
        finally:
            haproxy.send_signal(signal.SIGKILL)
            haproxy.wait()


def serves_own(folder: Path, port: int, backends: dict[str, BackendConfig], **settings: Any) -> Path:
    """Let Serve write its configuration."""
    config = HAProxyConfig(
        http_options=HTTPOptions(host="127.0.0.1", port=port),
        socket_path=str(folder / "admin.sock"),
        server_state_base=str(folder),
        server_state_file=str(folder / "state"),
        metrics_enabled=False,
        metrics_port=free_port(),
        stats_port=free_port(),
        retry_on=HAPROXY_SETTINGS["RAY_SERVE_HAPROXY_RETRY_ON"],
        retries=int(HAPROXY_SETTINGS["RAY_SERVE_HAPROXY_RETRIES"]),
        bufsize=int(HAPROXY_SETTINGS["RAY_SERVE_HAPROXY_TUNE_BUFSIZE"]),
        has_received_routes=bool(backends),
        has_received_servers=bool(backends),
        # By turns, so that of two backends both are met.
        **{"observe_mark_down_enabled": False, "balance_algorithm": "roundrobin", **settings},
    )
    api = HAProxyApi(config, backends, config_file_path=str(folder / "haproxy.cfg"))
    api._generate_config_file_internal()
    return folder / "haproxy.cfg"


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            httpx.get(url, timeout=1)
            return
        except httpx.TransportError:
            time.sleep(0.05)
    pytest.fail(f"no answer from {url}")


@pytest.fixture(scope="module")
def with_another() -> Iterator[Proxied]:
    dying, sound = Backend(None), Backend(ANSWER)
    with proxied([dying, sound]) as url:
        yield Proxied(url, dying, sound)


@pytest.fixture(scope="module")
def alone() -> Iterator[Proxied]:
    dying = Backend(None)
    with proxied([dying]) as url:
        yield Proxied(url, dying, None)


REPEATABLE = [
    ("GET", "/v1/products/p"),
    ("PUT", "/v1/products/p"),
    ("POST", "/v1/embed/openclip"),
    *(("POST", path) for path in REPEATABLE_POSTS),
]
ONCE_ONLY = [("POST", "/v1/jobs"), ("POST", "/v1/keys"), ("DELETE", "/v1/jobs/j")]


@pytest.mark.parametrize(("method", "path"), REPEATABLE)
def test_a_repeatable_request_that_dies_with_its_replica_is_answered_by_another(
    with_another: Proxied, method: str, path: str
) -> None:
    body = b"" if method == "GET" else os.urandom(200_000)
    with_another.dying.taken.clear()
    # By turns, so one of two is met by the backend that dies.
    answers = [with_another.send(method, path, body) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert with_another.dying.taken


@pytest.mark.parametrize(("method", "path"), ONCE_ONLY)
def test_other_requests_are_sent_once(with_another: Proxied, method: str, path: str) -> None:
    assert with_another.sound is not None
    with_another.dying.taken.clear()
    with_another.sound.taken.clear()
    answers = [with_another.send(method, path) for _ in range(2)]
    assert sorted(answer.status_code for answer in answers) == [200, 503]
    assert len(with_another.dying.taken) == len(with_another.sound.taken) == 1


def test_a_node_that_is_lost_with_two_of_three_gateways_costs_no_request() -> None:
    """The gateway that is left has a connection and the lost ones have none, so that they are asked first."""
    left = Backend(ANSWER)
    lost = [ServerConfig(f"lost-{n}", "127.0.0.1", free_port()) for n in range(2)]
    # Serve's own settings, but for the health checks, which must not find out first.
    noticed_by_requests_alone = {
        "observe_mark_down_enabled": True,
        "balance_algorithm": "leastconn",
        "health_check_inter": "3600s",
    }
    with proxied([left], lost=lost, **noticed_by_requests_alone) as url, ThreadPoolExecutor(1) as pool:
        try:
            under_way = pool.submit(httpx.get, url + HELD, timeout=60)
            while not left.taken:
                assert not under_way.done(), under_way.result()
                time.sleep(0.01)
            assert httpx.put(f"{url}/v1/products/p", timeout=20).status_code == 200
        finally:
            left.let_go.set()
        assert under_way.result().status_code == 200


def test_who_gets_no_answer_learns_when_to_come_again(alone: Proxied) -> None:
    answer = alone.send("POST", "/v1/jobs")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["error"]["type"] == "unavailable"


def test_a_request_beyond_the_buffer_learns_so_too(with_another: Proxied) -> None:
    answers = [with_another.send("POST", "/v1/search", os.urandom(2_000_000)) for _ in range(2)]
    assert sorted(answer.status_code for answer in answers) == [200, 503]


def assert_in_our_shape(answer: httpx.Response, status: int, kind: str, message: str) -> None:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    error = {"type": kind, "message": message, "param": None, "request_id": None}
    assert answer.json() == {"error": error}
    assert answer.headers.get("retry-after") == ("1" if status == 503 else None)


CALLS = [
    ("GET", "/v1/products/p"),
    ("DELETE", "/v1/products/p"),
    ("PUT", "/v1/products/p"),
    ("POST", "/v1/search"),
]


@pytest.fixture(scope="module")
def lost() -> Iterator[dict[str, str]]:
    """HAProxy where nobody knows a route, or nobody answers."""
    unrouted = Backend(plain(404))
    with (
        proxied([], routes=False) as without_routes,
        proxied([]) as without_servers,
        proxied([], unrouted) as before_fallback,
        proxied([unrouted]) as before_replica,
    ):
        yield {
            "no routes": without_routes,
            "no replica": without_servers,
            "a fallback without routes": before_fallback,
            "a replica that does not know the route": before_replica,
        }


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_nobody_gets_404_where_routes_are_not_known(lost: dict[str, str], method: str, path: str) -> None:
    for url in lost.values():
        answer = httpx.request(method, url + path, content=b"x" * 1000, timeout=20)
        assert_in_our_shape(answer, 503, *UNAVAILABLE)


def test_nor_while_a_large_body_is_sent(lost: dict[str, str]) -> None:
    for url in lost.values():
        answer = httpx.put(f"{url}/v1/products/p", content=bytes(20 * 2**20), timeout=60)
        assert_in_our_shape(answer, 503, *UNAVAILABLE)


def test_nor_by_head(lost: dict[str, str]) -> None:
    for url in lost.values():
        with httpx.Client(base_url=url) as client:
            answers = [client.head("/v1/products/p") for _ in range(2)]
        assert [answer.status_code for answer in answers] == [503, 503]
        assert [answer.headers["retry-after"] for answer in answers] == ["1", "1"]
        assert [answer.content for answer in answers] == [b"", b""]


def test_what_has_no_path_has_no_route_later_either(lost: dict[str, str]) -> None:
    for url in lost.values():
        with httpx.Client() as client:
            answer = client.send(httpx.Request("OPTIONS", url, extensions={"target": b"*"}))
        assert_in_our_shape(answer, 400, "invalid_request", REFUSALS[400])


def test_probes_are_answered_by_haproxy_as_ever(lost: dict[str, str]) -> None:
    assert httpx.get(lost["no routes"] + "/-/healthz").status_code == 503
    deadline = time.monotonic() + 30
    while httpx.get(lost["a fallback without routes"] + "/-/healthz").status_code != 200:
        assert time.monotonic() < deadline


FOREIGN = {
    "Serve's proxy knows no route": (404, NOT_FOUND),
    "Serve's proxy is not up yet": (503, "Route table is not populated yet."),
    "a replica is full": (503, "Request dropped due to backpressure"),
    "a replica is full and says so by 429": (429, "Request dropped due to backpressure"),
    "the handle of Serve's proxy fails": (500, "Internal Server Error"),
    "something in between": (502, "Bad Gateway"),
    "something in between is late": (504, "Gateway Timeout"),
}


@pytest.fixture(scope="module")
def answering() -> Iterator[tuple[str, Backend]]:
    """HAProxy before one backend, whose answer may be set."""
    backend = Backend(ANSWER)
    with proxied([backend]) as url:
        yield url, backend


@pytest.mark.parametrize("case", FOREIGN)
def test_an_error_that_is_not_a_gateways_is_an_outage(answering: tuple[str, Backend], case: str) -> None:
    url, backend = answering
    backend.answer = plain(*FOREIGN[case])
    for method, path in CALLS:
        assert_in_our_shape(httpx.request(method, url + path, timeout=20), 503, *UNAVAILABLE)


def test_the_time_to_wait_that_serve_is_configured_with_stays(answering: tuple[str, Backend]) -> None:
    url, backend = answering
    backend.answer = plain(503, "Request dropped due to backpressure", Retry_After="7")
    answer = httpx.get(f"{url}/v1/products/p")
    assert (answer.status_code, answer.headers.get_list("retry-after")) == (503, ["7"])
    assert answer.json()["error"]["type"] == UNAVAILABLE[0]


def test_serves_bound_on_time_is_a_deadline(answering: tuple[str, Backend]) -> None:
    url, backend = answering
    backend.answer = plain(408, "Request 17 timed out after 60s.")
    assert_in_our_shape(httpx.get(f"{url}/v1/products/p"), 503, *LATE)
    assert LATE[0] == DeadlineExceeded.kind
    assert UNAVAILABLE[0] == Unavailable.kind


def test_a_request_that_serves_server_cannot_read_is_the_callers_fault(
    answering: tuple[str, Backend],
) -> None:
    url, backend = answering
    backend.answer = plain(400, "Invalid HTTP request received.")
    assert_in_our_shape(httpx.get(f"{url}/v1/products/p"), 400, "invalid_request", REFUSALS[400])


@pytest.mark.parametrize("status", [200, 201, 204, 304, 400, 401, 404, 409, 413, 422, 429, 500, 503])
def test_an_answer_of_a_gateway_is_passed_on_without_its_mark(
    answering: tuple[str, Backend], status: int
) -> None:
    url, backend = answering
    text = "" if status in (204, 304) else '{"error": "ours"}'
    backend.answer = plain(status, text, Retry_After="3", X_Vitrine_Gateway="1")
    answer = httpx.get(f"{url}/v1/products/p")
    assert (answer.status_code, answer.text, answer.headers["retry-after"]) == (status, text, "3")
    assert GATEWAY_HEADER not in answer.headers


def test_an_answer_that_breaks_off_is_not_completed_by_anything(answering: tuple[str, Backend]) -> None:
    url, backend = answering
    backend.answer = plain(200, "half", Content_Length="8", X_Vitrine_Gateway="1")
    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
        httpx.get(f"{url}/v1/products/p")


def test_a_body_that_does_not_come_is_refused_in_our_form() -> None:
    with proxied([], timeout_http_request_s=1) as url:
        answer = spoken(url, b"PUT /v1/products/p HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nhalf")
        assert_in_our_shape(answer, 408, "invalid_request", REFUSALS[408])


@pytest.mark.parametrize(
    "said", [b"hello\r\n\r\n", b"GET /a b HTTP/1.1\r\n\r\n", b"GET /\x01 HTTP/1.1\r\n\r\n"]
)
def test_what_is_no_http_is_refused_by_a_text_that_haproxy_has_built_in(
    lost: dict[str, str], said: bytes
) -> None:
    for url in lost.values():
        answer = spoken(url, said)
        assert answer.status_code == 400
        assert "Your browser sent an invalid request" in answer.text, "it can be changed now"


def spoken(url: str, said: bytes) -> httpx.Response:
    """Send these bytes and read the answer to its end."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(said)
        with connection.makefile("rb") as stream:
            head, _, body = stream.read().partition(b"\r\n\r\n")
    status, *headers = head.decode().split("\r\n")
    pairs = [tuple(header.split(": ", 1)) for header in headers]
    return httpx.Response(int(status.split()[1]), headers=pairs, content=body)


def test_no_request_changes_the_protocol(answering: tuple[str, Backend]) -> None:
    url, backend = answering
    backend.answer = ANSWER
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    headers["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
    assert httpx.get(f"{url}/v1/products/p", headers=headers).status_code == 200
    assert "upgrade" not in backend.headers


def test_haproxy_and_gateway_know_the_same_mark() -> None:
    assert GATEWAY_HEADER == errors.GATEWAY_HEADER


def states() -> dict[str, dict[str, BackendConfig]]:
    """What Serve may know when it writes its configuration."""
    server, fallback = ServerConfig("replica", "127.0.0.1", 1), ServerConfig("proxy", "127.0.0.1", 2)

    def gateway(*servers: ServerConfig, fallback: ServerConfig | None = None) -> dict[str, BackendConfig]:
        backend = BackendConfig(
            name="http-gateway",
            path_prefix="/",
            servers=list(servers),
            app_name="gateway",
            fallback_server=fallback,
        )
        return {"gateway": backend}

    return {
        "nothing": {},
        "a route": gateway(),
        "a replica": gateway(server),
        "Serve's own proxy": gateway(fallback=fallback),
        "both": gateway(server, fallback=fallback),
    }


@pytest.mark.parametrize("drained", [False, True])
@pytest.mark.parametrize("state", states())
def test_every_change_to_serves_configuration_finds_its_line(
    tmp_path: Path, state: str, drained: bool
) -> None:
    """A Ray that writes other lines fails here: see `deployments.proxy.haproxy._script` then."""
    config = serves_own(tmp_path, 1, states()[state], pass_health_checks=not drained)
    before = config.read_text().splitlines()
    subprocess.run([write_launcher(tmp_path), "-c", "-f", config], check=True, capture_output=True)
    after = config.read_text().splitlines()
    assert (
        [line for line in before if "not found." in line]
        == [line for line in before if " 404 " in line]
        != []
    )
    gone = [line.split()[:3] for line in before if line not in after]
    assert sorted(gone) == sorted(
        [
            *(["errorfile", status, str(tmp_path / "500.http")] for status in ("502", "503", "504")),
            ["http-request", "return", "status"],
        ]
    )
    for section in ("defaults", "frontend http_frontend", "backend default_backend"):
        assert after.count(section) == 1
    # Whatever HAProxy answers by itself is ours, but for the two paths of probes.
    foreign = [
        line
        for line in after
        if re.search(" (return|deny|redirect|tarpit|reject|use-service) ", line)
        and not re.search(r"default-errorfiles|errorfile ", line)
    ]
    assert all(re.search(" if (healthcheck|routes|{ path /metrics })", line) for line in foreign), foreign


def test_the_calls_that_are_repeated_exist() -> None:
    paths = describe()["paths"]
    assert all("post" in paths[path] for path in REPEATABLE_POSTS)
