"""kill -9 while products are being written: every acknowledged product is found, without a manual step."""

import base64
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from demo.service import DemoService
from tests.support.indexed import pending
from tests.support.traffic import image

AFTER_S = 6.0
BEFORE, AFTER, PATIENCE_S = 3, 7, 60.0
"""Acknowledged writes that a test is worth something with, and how long a busy machine may take to them."""
RECOVERY_S = 120.0
VICTIMS = {
    "owner of Milvus Lite": "ServeReplica:milvus-lite:MilvusLite",
    "encoder": "ServeReplica:openclip:Encoder",
    "ingress": "ServeReplica:gateway:Gateway",
}


class Writer:
    """Puts one product after the other and remembers which were acknowledged."""

    def __init__(self, base_url: str, prefix: str) -> None:
        self.acknowledged: dict[str, bytes] = {}
        self.failures = 0
        self._client = httpx.Client(base_url=base_url, timeout=30)
        self._prefix = prefix
        self._stop = threading.Event()

    def run(self) -> None:
        number = 0
        with self._client:
            while not self._stop.is_set():
                self._put(f"{self._prefix}-{number}", image(hash((self._prefix, number)) % 2**32, side=96))
                number += 1

    def stop(self) -> None:
        self._stop.set()

    def wait_for(self, more: int, within_s: float) -> int:
        """Wait for so many more acknowledged writes; returns how many there were."""
        began, deadline = len(self.acknowledged), time.monotonic() + within_s
        while len(self.acknowledged) < began + more and time.monotonic() < deadline:
            time.sleep(0.1)
        return len(self.acknowledged) - began

    def _put(self, sku: str, data: bytes) -> None:
        body = {"attributes": {"sku": sku}, "images": [base64.b64encode(data).decode()]}
        try:
            answer = self._client.put(f"/v1/products/{sku}", json=body)
        except httpx.TransportError:
            self.failures += 1
            return
        if answer.status_code == 201:
            self.acknowledged[sku] = data
        else:
            self.failures += 1
            time.sleep(0.1)


@contextmanager
def writing(base_url: str, prefix: str) -> Iterator[Writer]:
    writer = Writer(base_url, prefix)
    thread = threading.Thread(target=writer.run)
    thread.start()
    try:
        yield writer
    finally:
        writer.stop()
        thread.join()


@pytest.mark.parametrize("victim", VICTIMS)
def test_nothing_acknowledged_is_lost(
    service: DemoService, client: httpx.Client, victim: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert service.processes(VICTIMS[victim])
    with writing(service.base_url, VICTIMS[victim].rsplit(":", 1)[1].lower()) as writer:
        assert writer.wait_for(BEFORE, PATIENCE_S) >= BEFORE
        # Load may have brought a second one.
        for process in service.processes(VICTIMS[victim]):
            process.kill()
        time.sleep(AFTER_S)
        assert writer.wait_for(AFTER, PATIENCE_S) >= AFTER
    seconds = recovered(client)
    counts = f"{len(writer.acknowledged)} acknowledged, {writer.failures} refused"
    with capsys.disabled():
        print(f"\n{victim}: {counts}, whole in {seconds:.1f} s")
    for sku, data in writer.acknowledged.items():
        for model in ("openclip", "dinov2", "blip2"):
            assert _found(client, model, sku, data), f"{sku} is lost to {model}"


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


def _found(client: httpx.Client, model: str, sku: str, data: bytes) -> bool:
    part = {"type": "image", "image": base64.b64encode(data).decode()}
    body = {"query": [part], "model": model, "filter": {"sku": sku}, "limit": 1}
    answer = client.post("/v1/search", json=body)
    assert answer.status_code == 200, answer.text
    return [result["product_id"] for result in answer.json()["results"]] == [sku]
