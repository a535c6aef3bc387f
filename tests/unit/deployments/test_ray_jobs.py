"""A job server that does not answer holds no thread of the gateway for ever, and no log fills its memory."""

import json
import socket
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from core.errors import NotFound, Unavailable
from deployments.config import JobsConfig
from deployments.services.jobs import MAX_LOG_BYTES, RayJobs

LINE = b"2026-03-01 12:00:00 INFO " + b"x" * 1000 + b"\n"


class Dashboard(ThreadingHTTPServer):
    """Ray's, as far as logs go: `status` and what it sends, `repeats` times."""

    status = 200
    sends = LINE
    repeats = 1
    node: str | None = "n1"
    asked: dict[str, list[str]]
    submitted: dict[str, object]

    @property
    def jobs(self) -> RayJobs:
        return self.jobs_with()

    def jobs_with(self, **settings: object) -> RayJobs:
        given = {"dashboard_url": f"http://127.0.0.1:{self.server_port}", "deadline_s": 30, **settings}
        return RayJobs(JobsConfig.model_validate(given))


class Answers(BaseHTTPRequestHandler):
    server: Dashboard

    def do_GET(self) -> None:
        path = urlsplit(self.path)
        if path.path == "/api/version":
            self._head(200)
            self.wfile.write(b'{"version": "4", "ray_version": "2.60.0", "ray_commit": "x"}')
            return
        if path.path == "/api/jobs/build-1":
            self._head(200)
            job = {
                "type": "SUBMISSION",
                "status": "RUNNING",
                "entrypoint": "x",
                "driver_node_id": self.server.node,
            }
            self.wfile.write(json.dumps(job).encode())
            return
        if path.path != "/api/v0/logs/file":
            self._head(404)
            return
        self.server.asked = parse_qs(path.query)
        self._head(self.server.status)
        for _ in range(self.server.repeats):
            self.wfile.write(self.server.sends)

    def do_POST(self) -> None:
        self.server.submitted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._head(200)
        self.wfile.write(b'{"job_id": "build-1", "submission_id": "build-1"}')

    def _head(self, status: int) -> None:
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def dashboard() -> Iterator[Dashboard]:
    with running() as server:
        yield server


@contextmanager
def running() -> Iterator[Dashboard]:
    with Dashboard(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_job_server_that_says_nothing_is_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        jobs = RayJobs(
            JobsConfig(dashboard_url=f"http://127.0.0.1:{server.getsockname()[1]}", deadline_s=0.1)
        )
        for call in (jobs.start, jobs.stop, lambda job_id: jobs.logs(job_id, 10)):
            with pytest.raises(Unavailable, match="Ray does not take jobs now"):
                call("build-1")


def test_the_end_of_a_log_is_asked_for(dashboard: Dashboard) -> None:
    dashboard.sends = "eins\nzw\N{LATIN SMALL LETTER O WITH DIAERESIS}lf\n".encode() + b"\xff"
    assert dashboard.jobs.logs("build-1", 7) == "eins\nzw\xf6lf\n\ufffd"
    asked = {name: dashboard.asked[name] for name in ("submission_id", "node_id", "lines")}
    assert asked == {"submission_id": ["build-1"], "node_id": ["n1"], "lines": ["7"]}


@pytest.mark.parametrize("ends", [b"\n", b""], ids=["lines", "one line"])
def test_a_log_of_any_size_takes_bounded_memory(dashboard: Dashboard, ends: bytes) -> None:
    dashboard.sends, dashboard.repeats = LINE.rstrip() + ends, 16 * MAX_LOG_BYTES // len(LINE)
    tracemalloc.start()
    try:
        text = dashboard.jobs.logs("build-1", 10_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert MAX_LOG_BYTES - 2 * len(LINE) < len(text) <= MAX_LOG_BYTES
    assert peak < 5 * MAX_LOG_BYTES
    if ends:
        assert set(text.splitlines()) == {LINE.decode().rstrip()}


@pytest.mark.parametrize("node", [None, "n1"])
def test_a_job_that_has_written_nothing_has_an_empty_log(dashboard: Dashboard, node: str | None) -> None:
    dashboard.status, dashboard.sends, dashboard.node = 500, b"A file is not found at: /tmp/x.log", node
    assert dashboard.jobs.logs("build-1", 10) == ""


def test_a_job_that_ray_does_not_know_has_no_logs(dashboard: Dashboard) -> None:
    with pytest.raises(NotFound, match="started from a shell"):
        dashboard.jobs.logs("build-2", 10)


@pytest.mark.parametrize(
    ("status", "said", "error"),
    [
        (500, "Could not find a log file. Please make sure …", NotFound),
        (500, "Agent for node id: n1 doesn't exist.", NotFound),
        (429, "Too many requests", Unavailable),
        (500, "the agent is away", Unavailable),
    ],
)
def test_logs_that_are_nowhere_are_reported_from_a_server_that_cannot_answer(
    dashboard: Dashboard, status: int, said: str, error: type[Exception]
) -> None:
    dashboard.status, dashboard.sends = status, said.encode()
    with pytest.raises(error):
        dashboard.jobs.logs("build-1", 10)


def test_the_process_of_a_job_reserves_what_keeps_it_off_the_head(dashboard: Dashboard) -> None:
    dashboard.jobs_with(process_resources={"service_node": 0.001}, process_memory_bytes=2**31).start(
        "build-1"
    )
    assert dashboard.submitted["entrypoint_resources"] == {"service_node": 0.001}
    assert dashboard.submitted["entrypoint_memory"] == 2**31
    dashboard.jobs.start("build-1")
    assert dashboard.submitted.get("entrypoint_resources") is None, "one machine has no kinds of nodes"
