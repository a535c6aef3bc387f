"""kill -9 while products are written, one by one and in batches that also delete.

Every acknowledged product is found, and none that was deleted, without a manual step. For 40 kills:
`VITRINE_KILLS=40 .venv/bin/python -m pytest tests/e2e/test_kills.py`.
"""

import base64
import itertools
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import pytest

from demo.service import DemoService
from tests.support.indexed import pending
from tests.support.traffic import image
from tests.support.waiting import wait_until

KILLS = int(os.environ.get("VITRINE_KILLS", "3"))
BEFORE, AFTER, PATIENCE_S = 3, 7, 60.0
"""Acknowledged writes that a test is worth something with, and how long a busy machine may take to them."""
RECOVERY_S = 120.0
BATCH = 4
"""Products that a batch puts."""
VICTIMS = {
    "owner of Milvus Lite": "ServeReplica:milvus-lite:MilvusLite",
    "encoder": "ServeReplica:openclip:Encoder",
    "ingress": "ServeReplica:gateway:Gateway",
}


class Writer:
    """Puts one product after the other and remembers which were acknowledged."""

    def __init__(self, base_url: str, prefix: str) -> None:
        self.acknowledged: dict[str, bytes] = {}
        self.deleted: dict[str, bytes] = {}
        self.failures = 0
        self._client = httpx.Client(base_url=base_url, timeout=30)
        self._prefix = prefix
        self._stop = threading.Event()

    def run(self) -> None:
        with self._client:
            for number in itertools.count():
                if self._stop.is_set():
                    return
                self._write(number)

    def stop(self) -> None:
        self._stop.set()

    def wait_for(self, more: int, within_s: float) -> int:
        """Wait for so many more acknowledged writes; returns how many there were."""
        began, deadline = self._count(), time.monotonic() + within_s
        while self._count() < began + more and time.monotonic() < deadline:
            time.sleep(0.1)
        return self._count() - began

    def _count(self) -> int:
        return len(self.acknowledged) + len(self.deleted)

    def _write(self, number: int) -> None:
        sku, data = self._product(number)
        answer = self._send("PUT", f"/v1/products/{sku}", _body(sku, data))
        if answer is not None:
            self.acknowledged[sku] = data

    def _product(self, number: int) -> tuple[str, bytes]:
        return f"{self._prefix}-{number}", image(hash((self._prefix, number)) % 2**32, side=96)

    def _send(self, method: str, path: str, body: dict[str, Any]) -> httpx.Response | None:
        """Send a request and return its answer if it succeeded."""
        with suppress(httpx.TransportError):
            answer = self._client.request(method, path, json=body)
            if answer.is_success:
                return answer
        self.failures += 1
        time.sleep(0.1)
        return None


class BatchWriter(Writer):
    """Puts products in batches, each of which deletes some of the batch before."""

    def _write(self, number: int) -> None:
        put = dict(self._product(number * BATCH + each) for each in range(BATCH))
        doomed = dict(list(self.acknowledged.items())[-BATCH // 2 :])
        operations = [{"op": "put", "product_id": sku, **_body(sku, data)} for sku, data in put.items()]
        operations += [{"op": "delete", "product_id": sku} for sku in doomed]
        for sku in doomed:
            # Until it is acknowledged, a delete may have been done or not.
            del self.acknowledged[sku]
        answer = self._send("POST", "/v1/products:batch", {"operations": operations})
        for result in [] if answer is None else answer.json()["results"]:
            sku = result["product_id"]
            if result["status"] >= 300:
                self.failures += 1
            elif sku in put:
                self.acknowledged[sku] = put[sku]
            else:
                self.deleted[sku] = doomed[sku]


def _body(sku: str, data: bytes) -> dict[str, Any]:
    return {"attributes": {"sku": sku}, "images": [base64.b64encode(data).decode()]}


@contextmanager
def running(writers: list[Writer]) -> Iterator[None]:
    threads = [threading.Thread(target=writer.run) for writer in writers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for writer in writers:
            writer.stop()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("kill", range(KILLS))
def test_nothing_acknowledged_is_lost_and_nothing_deleted_comes_back(
    service: DemoService, client: httpx.Client, kill: int, capsys: pytest.CaptureFixture[str]
) -> None:
    victim = list(VICTIMS)[kill % len(VICTIMS)]
    assert service.processes(VICTIMS[victim])
    writers = [Writer(service.base_url, f"kill-{kill}"), BatchWriter(service.base_url, f"batch-kill-{kill}")]
    with running(writers):
        assert all(writer.wait_for(BEFORE, PATIENCE_S) >= BEFORE for writer in writers)
        # Load may have brought a second one.
        killed = service.processes(VICTIMS[victim])
        for process in killed:
            process.kill()
        wait_until(
            lambda: {*service.processes(VICTIMS[victim])} - {*killed}, PATIENCE_S, f"no other {victim}"
        )
        assert all(writer.wait_for(AFTER, PATIENCE_S) >= AFTER for writer in writers)
    seconds = recovered(client)
    kept = writers[0].acknowledged | writers[1].acknowledged
    gone = writers[1].deleted
    failures = sum(writer.failures for writer in writers)
    with capsys.disabled():
        print(
            f"\n{victim}: {len(kept)} acknowledged, {len(gone)} deleted, {failures} refused, "
            f"whole in {seconds:.1f} s"
        )
    for model in ("openclip", "dinov2", "blip2"):
        for sku, data in (kept | gone).items():
            expected = [sku] if sku in kept else []
            assert _found(client, model, sku, data) == expected, f"{sku} in {model}"


def recovered(client: httpx.Client) -> float:
    started = time.monotonic()
    while time.monotonic() - started < RECOVERY_S:
        try:
            if pending(client) == 0 and client.get("/health/ready").status_code == 200:
                return time.monotonic() - started
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    pytest.fail(f"not whole again after {RECOVERY_S:g} s: {client.get('/v1/stats').text}")


def _found(client: httpx.Client, model: str, sku: str, data: bytes) -> list[str]:
    part = {"type": "image", "image": base64.b64encode(data).decode()}
    body = {"query": [part], "model": model, "filter": {"sku": sku}, "limit": 1}
    answer = client.post("/v1/search", json=body)
    assert answer.status_code == 200, answer.text
    return [result["product_id"] for result in answer.json()["results"]]
