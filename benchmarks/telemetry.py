"""Cost of telemetry for a request, in metrics, log lines and spans: `python -m benchmarks.telemetry`."""

import asyncio
import json
import os
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import numpy as np
import ray
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from ray import serve
from ray.serve.schema import LoggingConfig

from core.telemetry import Stage, watch_stages
from deployments.http.middleware import RequestId
from deployments.observability.access_log import AccessLog
from deployments.observability.metrics import CACHE_HITS, STAGE_SECONDS
from deployments.observability.telemetry import called, recorded_stage, start_telemetry
from jobs.runner.cluster import start_ray

CALLS = 2_000
ROUNDS = 5
MEMBERS = 3
"""Members of the ensemble in `search_in_all`."""


async def answered(_scope: Any, _receive: Any, send: Any) -> None:
    """Answer at once without content."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


class Nowhere(SpanExporter):
    """Takes spans and sends them nowhere."""

    def export(self, spans: Any) -> SpanExportResult:  # noqa: ARG002
        """Drop the spans."""
        return SpanExportResult.SUCCESS


class Measured:
    """A replica, so that metrics are Ray's and log lines go through Serve."""

    def __init__(self) -> None:
        start_telemetry()

    async def measure(self) -> dict[str, float]:
        """Time each part alone, in µs of processor time a call."""
        found = {
            "counter": await _each(lambda: CACHE_HITS.add(model="dinov2")),
            "histogram": await _each(lambda: STAGE_SECONDS.observe(0.01, stage="search", model="dinov2")),
            "stage": await _each(_stage),
            "call": await _each(_call),
            "request": await _each_request(AccessLog(answered, [])) - await _each_request(answered),
        }
        watch_stages(None)
        found["stage_unrecorded"] = await _each(_stage)
        watch_stages(recorded_stage)
        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(Nowhere()))
        with provider.get_tracer("serve").start_as_current_span("replica"):
            found["stage_traced"] = await _each(_stage)
        return found


def _stage() -> None:
    with Stage("search", "dinov2"):
        pass


def _call() -> None:
    with called("encode", "dinov2", 1):
        pass


def _search(part: Mapping[str, float]) -> dict[str, float]:
    """Add up the telemetry of a search by image, on its longest path and in all processes.

    In the gateway a request and two stages, `ensemble` and `hydrate`; in the ensemble a call, `fuse`, and of
    each member `encode` and `search`; in each encoder a call, a histogram of decoding,
    and three of a batch.
    """
    member = 2 * part["stage"]
    encoder = part["call"] + 4 * part["histogram"]
    shared = part["request"] + part["call"] + 3 * part["stage"]
    return {"search": shared + member + encoder, "search_in_all": shared + MEMBERS * (member + encoder)}


async def _each(call: Callable[[], None]) -> float:
    async def many() -> None:
        for _ in range(CALLS):
            call()

    return await _microseconds(many)


async def _each_request(app: Any) -> float:
    request = RequestId(app)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(_message: Any) -> None:
        return None

    async def many() -> None:
        for _ in range(CALLS):
            scope = {"type": "http", "method": "POST", "path": "/v1/search", "headers": []}
            await request(scope, receive, send)

    return await _microseconds(many)


async def _microseconds(many: Callable[[], Coroutine[Any, Any, None]]) -> float:
    """Return the best of some rounds, since other work on the machine can only add."""
    rounds = []
    for _ in range(ROUNDS):
        started = time.thread_time()
        await many()
        rounds.append((time.thread_time() - started) / CALLS * 1e6)
        await asyncio.sleep(0)
    return float(np.min(rounds))


def main() -> None:
    """Measure on a Ray of its own."""
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    os.environ |= {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1"}
    start_ray(namespace="serve", include_dashboard=False, log_to_driver=False)
    try:
        logging_config = LoggingConfig(encoding="JSON", enable_access_log=False)
        deployment = serve.deployment(Measured, logging_config=logging_config.model_dump())
        handle = serve.run(deployment.bind(), route_prefix=None)
        found = handle.measure.remote().result(timeout_s=300)
    finally:
        serve.shutdown()
        ray.shutdown()
    found |= _search(found)
    print("| part | µs of processor time |\n| --- | --- |")
    for part, microseconds in found.items():
        print(f"| {part} | {microseconds:.1f} |")
    print(json.dumps({part: round(microseconds, 1) for part, microseconds in found.items()}))


if __name__ == "__main__":
    main()
