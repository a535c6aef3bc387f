"""Too much, too long, gone away, and a replica that dies: through HAProxy, Serve and real replicas."""

import asyncio
import csv
import io
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import yaml

from core.tcp_ports import free_port
from demo.service import DemoService
from tests.support.children import shown_on_failure

ROOT = Path(__file__).parents[3]
MAX_IN_FLIGHT = 4
START_TIMEOUT_S = 300.0
PARTS_OF_HAPROXY = ("FRONTEND", "BACKEND")


def config(home: Path) -> dict[str, object]:
    encoder = {
        "name": "obedient",
        "route_prefix": None,
        "import_path": "tests.support.obedient_encoder:build_encoder",
        "args": {"name": "obedient", "notes": str(home / "notes")},
        "deployments": [
            {
                "name": "Encoder",
                "num_replicas": 2,
                "max_ongoing_requests": 20,
                "graceful_shutdown_timeout_s": 1,
                "ray_actor_options": {"num_cpus": 0.1},
            }
        ],
    }
    gateway = {
        "name": "gateway",
        "route_prefix": "/",
        "import_path": "deployments.app:build_gateway",
        "args": {
            "catalog": {"database_url": f"sqlite:///{home}/catalog.sqlite", "blobs_url": f"{home}/blobs"},
            "milvus": {"uri": "http://127.0.0.1:1"},
            "admission": {"max_in_flight": MAX_IN_FLIGHT},
        },
        "deployments": [
            {
                "name": "Gateway",
                "max_ongoing_requests": 200,
                "graceful_shutdown_timeout_s": 1,
                "user_config": {"models": ["obedient"]},
                "ray_actor_options": {"num_cpus": 0.1},
            }
        ],
    }
    return {
        "proxy_location": "HeadOnly",
        "http_options": {"host": "127.0.0.1"},
        "applications": [encoder, gateway],
    }


class Running:
    """The service, and what its encoder has noted."""

    def __init__(self, service: DemoService, notes: Path) -> None:
        self.base_url = service.base_url
        self._url = f"{service.base_url}/v1/embed/obedient"
        self._service = service
        self._notes = notes

    def embed(self, words: str, **headers: str) -> httpx.Response:
        return httpx.post(self._url, json={"text": words}, headers=headers, timeout=50)

    async def leave(self, words: str) -> None:
        """Ask, and go away when the encoder has begun."""
        async with httpx.AsyncClient(timeout=120) as client:
            asked = asyncio.create_task(client.post(self._url, json={"text": words}))
            await asyncio.to_thread(self.await_note, f"begun {words!r}")
            asked.cancel()
            await asyncio.wait([asked])

    def await_note(self, line: str, count: int = 1, patience_s: float = 60) -> None:
        deadline = time.monotonic() + patience_s
        while self.notes().count(line) < count:
            assert time.monotonic() < deadline, f"{line!r} is not among {self.notes()}"
            time.sleep(0.05)

    def gateway_logs(self) -> str:
        (gateway,) = self._service.processes("ServeReplica:gateway:Gateway")
        paths = {file.path for file in gateway.open_files() if file.path.endswith(".log")}
        return "".join(Path(path).read_text() for path in paths)

    def notes(self) -> list[str]:
        return self._notes.read_text().splitlines()


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with tempfile.TemporaryDirectory(prefix="vitrine-") as folder, pytest.MonkeyPatch.context() as patch:
        home = Path(folder)
        (home / "notes").touch()
        file = home / "serve_config.yaml"
        file.write_text(yaml.safe_dump(config(home)))
        # The replicas import the encoder from the tests, which are not installed.
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("RAY_SERVE_HAPROXY_STATS_PORT", str(stats_port := free_port()))
        with DemoService(home, free_port(), file) as service, shown_on_failure(service.log_file):
            _wait_until_direct(service, stats_port)
            yield Running(service, home / "notes")


def _wait_until_direct(service: DemoService, stats_port: int) -> None:
    """Wait until HAProxy sends requests to the replica itself.

    For some moments it sends them through Serve's own proxy, which does not pass on that a client is gone.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    servers: list[tuple[str, str]] = []
    while time.monotonic() < deadline:
        try:
            stats = httpx.get(f"http://127.0.0.1:{stats_port}/stats;csv").raise_for_status().text
            rows = csv.DictReader(io.StringIO(stats))
            servers = [
                (row["svname"], row["status"]) for row in rows if row["svname"] not in PARTS_OF_HAPROXY
            ]
            if any("REPLICA_gateway" in name and status.startswith("UP") for name, status in servers):
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    pytest.fail(f"no replica among {servers}: {service.log_file.read_text()[-2000:]}")


def test_clients_that_go_away_cancel_the_work_in_the_encoder(running: Running) -> None:
    for number in range(8):
        asyncio.run(running.leave(f"wait for nobody {number}"))
        # Long before the deadline of the request, which would cancel it too.
        running.await_note(f"canceled 'wait for nobody {number}'", patience_s=20)


def test_a_deadline_of_the_caller_ends_the_work_in_our_form(running: Running) -> None:
    answer = running.embed("wait for a second", **{"X-Request-Timeout-Seconds": "1"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["error"]["type"] == "deadline_exceeded"
    running.await_note("canceled 'wait for a second'")


def test_a_call_that_dies_with_its_replica_is_answered_by_another(running: Running) -> None:
    answer = running.embed("die once")
    assert (answer.status_code, answer.json()["embedding"]) == (200, [1.0, 0.0])
    assert running.notes().count("begun 'die once'") == 2


def test_a_bug_of_a_replica_is_an_internal_error_and_is_not_repeated(running: Running) -> None:
    answer = running.embed("stumble", **{"X-Request-ID": "stumbled"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "internal")
    assert "a bug of the encoder" not in answer.text
    assert running.notes().count("begun 'stumble'") == 1
    lines = [line for line in running.gateway_logs().splitlines() if "ZeroDivisionError" in line]
    assert lines, running.gateway_logs()[-2000:]


def test_what_is_too_much_is_refused_at_once_in_our_form(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    limit = {"X-Request-Timeout-Seconds": "15"}
    with ThreadPoolExecutor(MAX_IN_FLIGHT) as pool, httpx.Client(base_url=running.base_url) as client:
        held = [pool.submit(running.embed, "wait here", **limit) for _ in range(MAX_IN_FLIGHT)]
        running.await_note("begun 'wait here'", MAX_IN_FLIGHT)
        assert client.get("/health/live").status_code == 200
        times = []
        for _ in range(100):
            started = time.perf_counter()
            answer = client.get("/v1/products")
            times.append((time.perf_counter() - started) * 1e3)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert answer.json()["error"]["type"] == "overloaded"
        refused = client.get("/v1/products", headers={"X-Request-Timeout-Seconds": "soon"})
        assert refused.status_code == 503, "what is refused at once needs no deadline"
        assert [answer.result().status_code for answer in held] == [503] * MAX_IN_FLIGHT
        assert client.get("/v1/products").status_code == 200
    times.sort()
    with capsys.disabled():
        print(f"\nrefused within {times[50]:.1f} ms (p50), {times[98]:.1f} ms (p99)")


def test_what_goes_wrong_is_logged_under_the_id_of_its_request(running: Running) -> None:
    answer = running.embed("die", **{"X-Request-ID": "reported-by-the-caller"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (503, "model_unavailable")
    lines = [line for line in running.gateway_logs().splitlines() if "obedient failed" in line]
    assert any("reported-by-the-caller" in line for line in lines), running.gateway_logs()[-2000:]
