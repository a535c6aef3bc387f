"""kill -9 of what brings requests to the gateway, in turns, while products are written, deleted and searched.

Products are written one by one and in batches that also delete.

Every answer is a success or a 503 in the form of all errors, and what was acknowledged holds. For 40 kills, which
take about six minutes: `VITRINE_ROUTE_KILLS=40 .venv/bin/python -m pytest tests/e2e/test_route_kills.py`.
"""

import base64
import itertools
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psutil
import pytest

from demo.service import DemoService
from tests.e2e.test_kills import recovered
from tests.support.indexed import stored_ids
from tests.support.traffic import image

KILLS = int(os.environ.get("VITRINE_ROUTE_KILLS", "4"))
VICTIMS = {
    "controller": "ray::ServeController",
    "Serve's own proxy": "ray::ProxyActor",
    "HAProxy": "/bin/haproxy ",
    "HAProxy's manager": "ray::HAProxyManager",
}
SILENT = ("HAProxy", "HAProxy's manager")
"""While these are away nothing listens: Ray ends HAProxy with its manager."""
BATCH_PATH = "/v1/products:batch"
BATCH = 4
"""Products that one batch puts."""
METHODS = ("PUT", "DELETE", "POST", "BATCH", "GET")
SUCCESSES = 5
"""Of each kind, after which a kill counts as over."""
PATIENCE_S = 120.0
PAUSE_S, RETRY_S = 0.02, 0.2
STOCK = 10
"""Products that wait for their delete."""
TOGETHER = 50
"""Products that one search looks for."""


class Load:
    """Callers that go on whatever happens, repeating what was not done, and the answers that they got."""

    def __init__(self, base_url: str) -> None:
        self.kept: dict[str, bytes] = {}
        self.deleted: dict[str, bytes] = {}
        self.answers: Counter[tuple[str, str]] = Counter()
        self.misleading: list[str] = []
        self.victim = "nobody"
        self._base_url = base_url
        self._stop = threading.Event()
        self._numbers = itertools.count()
        self._to_delete: deque[str] = deque()
        self._lasting = ""

    @contextmanager
    def running(self) -> Iterator["Load"]:
        actions = (self._write, self._write, self._delete, self._batch, self._search, self._read)
        threads = [threading.Thread(target=self._run, args=(action,)) for action in actions]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def wait_for_successes(self) -> None:
        before = {method: self.answers[method, "success"] for method in METHODS}
        deadline = time.monotonic() + PATIENCE_S
        while any(self.answers[method, "success"] < before[method] + SUCCESSES for method in METHODS):
            assert time.monotonic() < deadline, f"after a kill of {self.victim}: {self.answers}"
            time.sleep(0.1)

    def _run(self, action: Callable[[httpx.Client], None]) -> None:
        with httpx.Client(base_url=self._base_url, timeout=60) as client:
            while not self._stop.is_set():
                action(client)
                self._stop.wait(PAUSE_S)

    def _write(self, client: httpx.Client) -> None:
        number = next(self._numbers)
        sku, data = f"route-{number}", image(number, side=96)
        body = {"attributes": {"sku": sku}, "images": [base64.b64encode(data).decode()]}
        while self._ask(client, "PUT", f"/v1/products/{sku}", body) is None:
            if self._stop.is_set():
                return
        self._keep(sku, data)

    def _keep(self, sku: str, data: bytes) -> None:
        self.kept[sku] = data
        if int(sku.rsplit("-", 1)[1]) % 2:
            self._to_delete.append(sku)
        else:
            self._lasting = sku

    def _delete(self, client: httpx.Client) -> None:
        # Some are always there, so that a kill meets deletes as well.
        if len(self._to_delete) < STOCK:
            return
        sku = self._to_delete.popleft()
        data = self.kept.pop(sku)
        true: tuple[int, ...] = ()
        while self._ask(client, "DELETE", f"/v1/products/{sku}", true=true) is None:
            if self._stop.is_set():
                return
            # What was not acknowledged may have been done.
            true = (404,)
        self.deleted[sku] = data

    def _batch(self, client: httpx.Client) -> None:
        numbers = list(itertools.islice(self._numbers, BATCH))
        files = {f"route-{number}": image(number, side=96) for number in numbers}
        doomed = {}
        if len(self._to_delete) >= STOCK:
            sku = self._to_delete.popleft()
            doomed[sku] = self.kept.pop(sku)
        left: dict[str, dict[str, Any]] = {
            sku: {
                "op": "put",
                "product_id": sku,
                "attributes": {"sku": sku},
                "images": [base64.b64encode(data).decode()],
            }
            for sku, data in files.items()
        } | {sku: {"op": "delete", "product_id": sku} for sku in doomed}
        gone: tuple[int, ...] = ()
        while left and not self._stop.is_set():
            answer = self._ask(client, "BATCH", BATCH_PATH, {"operations": list(left.values())})
            results = [] if answer is None else answer.json()["results"]
            for sku, result in zip(list(left), results, strict=answer is not None):
                if result["status"] in (200, 201, 204) or (sku in doomed and result["status"] in gone):
                    del left[sku]
                    if sku in doomed:
                        self.deleted[sku] = doomed[sku]
                    else:
                        self._keep(sku, files[sku])
                elif result["status"] != 503:
                    self.misleading.append(f"{sku} of a batch while {self.victim} is away: {result}")
            # What was not acknowledged may have been done.
            gone = (404,)
            if left:
                self._stop.wait(RETRY_S)

    def _search(self, client: httpx.Client) -> None:
        self._ask(client, "POST", "/v1/search", {"query": "a red checked dress", "limit": 3})

    def _read(self, client: httpx.Client) -> None:
        if self._lasting:
            self._ask(client, "GET", f"/v1/products/{self._lasting}")

    def _ask(
        self, client: httpx.Client, method: str, path: str, body: Any = None, true: tuple[int, ...] = ()
    ) -> httpx.Response | None:
        """Send a request and return its answer if it was done; the statuses in `true` also say so."""
        request = f"{method} {path} while {self.victim} is away"
        try:
            answer = client.request("POST" if method == "BATCH" else method, path, json=body)
        except httpx.TransportError as error:
            self.answers[method, "no answer"] += 1
            if self.victim not in SILENT:
                self.misleading.append(f"{request}: {error!r}")
        else:
            if answer.is_success or answer.status_code in true:
                self.answers[method, "success"] += 1
                return answer
            self.answers[method, str(answer.status_code)] += 1
            if not _is_outage_in_our_form(answer):
                self.misleading.append(f"{request}: {answer.status_code} {answer.text[:300]!r}")
        self._stop.wait(RETRY_S)
        return None


def _is_outage_in_our_form(answer: httpx.Response) -> bool:
    if answer.status_code != 503 or not answer.headers.get("retry-after", "").isdigit():
        return False
    try:
        return set(answer.json()["error"]) == {"type", "message", "param", "request_id"}
    except (ValueError, KeyError, TypeError):
        return False


def test_no_answer_misleads_and_what_was_acknowledged_holds(
    service: DemoService, client: httpx.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    with Load(service.base_url).running() as load:
        load.wait_for_successes()
        for victim in itertools.islice(itertools.cycle(VICTIMS), KILLS):
            load.victim = victim
            _kill(service, VICTIMS[victim])
            load.wait_for_successes()
    recovered(client)
    answers = ", ".join(
        f"{method} {result} {count}" for (method, result), count in sorted(load.answers.items())
    )
    with capsys.disabled():
        print(f"\n{KILLS} kills: {answers}; {len(load.kept)} products kept, {len(load.deleted)} deleted")
    assert not load.misleading
    _assert_that_all_holds(client, load)


def _kill(service: DemoService, title: str) -> None:
    """Kill, and wait until there is another."""
    old = service.processes(title)
    assert old, title
    for process in old:
        process.kill()
    psutil.wait_procs(old, timeout=PATIENCE_S)
    deadline = time.monotonic() + PATIENCE_S
    while not service.processes(title):
        assert time.monotonic() < deadline, f"no other {title}"
        time.sleep(0.1)


def _assert_that_all_holds(client: httpx.Client, load: Load) -> None:
    listed = stored_ids(client)
    assert load.kept.keys() <= listed
    assert not load.deleted.keys() & listed
    written = list((load.kept | load.deleted).items())
    for start in range(0, len(written), TOGETHER):
        some = dict(written[start : start + TOGETHER])
        part = {"type": "image", "image": base64.b64encode(next(iter(some.values()))).decode()}
        body = {"query": [part], "filter": {"sku": list(some)}, "limit": TOGETHER}
        for model in ("openclip", "dinov2", "blip2"):
            page = client.post("/v1/search", json=body | {"model": model}).raise_for_status().json()
            found = {result["product_id"] for result in page["results"]}
            assert found == some.keys() & load.kept.keys(), model
