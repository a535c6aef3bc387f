"""A running service names itself: metrics for every query, one id and one trace through all deployments."""

import base64
import io
import json
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from demo.service import DemoService
from deployments.observability.metrics import METRICS
from tests.support.servers import TraceReceiver
from tests.support.telemetry import OF_OTHERS, conditions, queries, selections

MODELS = ("openclip", "dinov2", "blip2")
NEED_GPU = {"ray_node_gpus_utilization", "ray_node_gram_used"}
OF_THE_MONITOR = {"ray_io_group"}
"""Labels that the PodMonitor adds to what pods export."""
WITHIN_S = 90.0
SECRET = "vk_5f0c2a9be417_a-key-that-must-not-be-reported"
STAGES_OF_MODELS = ("encode", "preprocess", "queue", "forward", "search")
STAGES = {"ensemble", "encode", "preprocess", "queue", "forward", "search", "fuse", "hydrate"}


def fresh_image() -> bytes:
    """Noise, so that no cache holds it."""
    stream = io.BytesIO()
    Image.frombytes("RGB", (48, 48), os.urandom(3 * 48 * 48)).save(stream, "PNG")
    return stream.getvalue()


def search(client: httpx.Client, image: bytes, **headers: str) -> httpx.Response:
    body = {"query": [{"type": "image", "image": base64.b64encode(image).decode()}], "limit": 3}
    answer = client.post("/v1/search", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


def eventually(check: Callable[[], list[Any]]) -> list[Any]:
    """What is missing still when it has had time to come; nothing as soon as nothing is."""
    deadline = time.monotonic() + WITHIN_S
    while (missing := check()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return missing


Samples = dict[str, list[dict[str, str]]]
"""The labels of every sample, by its name."""


@pytest.fixture
def exported(service: DemoService) -> Callable[[], Samples]:
    (raylet, *_) = service.processes("raylet/raylet")
    found = re.search(r"/\S*/session_[0-9_-]+", " ".join(raylet.cmdline()))
    assert found is not None
    targets = Path(found[0]) / "prom_metrics_service_discovery.json"

    def scrape() -> Samples:
        samples: Samples = {}
        for target in {each for group in json.loads(targets.read_text()) for each in group["targets"]}:
            try:
                text = httpx.get(f"http://{target}/metrics", timeout=30).text
            except httpx.ConnectError:
                # Ray also names its autoscaler, which runs on clusters of Kubernetes only.
                continue
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    samples.setdefault(sample.name, []).append(sample.labels)
        return samples

    return scrape


def test_every_query_of_dashboard_and_alerts_is_about_what_is_exported(
    client: httpx.Client, exported: Callable[[], Samples]
) -> None:
    search(client, image := fresh_image())
    search(client, image)
    assert client.post("/v1/embed/openclip", json={"image": base64.b64encode(b"no image").decode()}).is_error
    assert client.get("/v1/products/there-is-no-such-product").status_code == 404
    client.post("/v1/search", json={"query": "a red dress"}).raise_for_status()
    asked = {
        each for query in queries() for each in selections(query) if each[0] not in {*NEED_GPU, *OF_OTHERS}
    }
    # Not by types of errors: most of those that alerts ask for do not happen here.
    matched = {each for query in queries() for each in conditions(query) if each[1] in ("stage", "route")}

    def missing() -> list[tuple[str, ...]]:
        samples = exported()
        lacking: list[tuple[str, ...]] = [
            (metric, *sorted(labels - OF_THE_MONITOR))
            for metric, labels in sorted(asked)
            if not any(labels - OF_THE_MONITOR <= found.keys() for found in samples.get(metric, []))
        ]
        return lacking + [
            (metric, label, pattern)
            for metric, label, pattern in sorted(matched)
            if not any(re.fullmatch(pattern, found.get(label, "")) for found in samples.get(metric, []))
        ]

    assert eventually(missing) == []


def test_every_metric_is_exported_under_its_name_with_its_labels(
    client: httpx.Client, exported: Callable[[], Samples]
) -> None:
    search(client, fresh_image())

    def missing() -> list[str]:
        samples = exported()
        suffix = {"counter": "", "gauge": "", "histogram": "_bucket"}
        return [
            metric.name
            for metric in METRICS
            if not any(
                {*metric.labels, "application", "deployment", "replica"} <= found.keys()
                for found in samples.get(f"ray_{metric.name}{suffix[metric.kind]}", [])
            )
        ]

    assert eventually(missing) == []


def lines(log_folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(log_folder.glob("*.log")):
        for line in path.read_text().splitlines():
            if line.startswith("{"):
                yield json.loads(line)


def test_one_id_runs_through_the_lines_of_all_deployments(client: httpx.Client, log_folder: Path) -> None:
    request_id = f"telemetry-{uuid.uuid4().hex}"
    answer = search(client, fresh_image(), **{"X-Request-ID": request_id})
    assert answer.headers["x-request-id"] == request_id
    encoders = {f"{model}_Encoder" for model in MODELS}
    wanted = {"gateway_Gateway", "ensemble_Ensemble", "milvus-lite_MilvusLite", *encoders}

    def reported() -> list[dict[str, Any]]:
        return [line for line in lines(log_folder) if line.get("request_id") == request_id]

    assert eventually(lambda: sorted(wanted - {line["deployment"] for line in reported()})) == []
    (whole,) = [line for line in reported() if line["deployment"] == "gateway_Gateway"]
    facts = {key: whole[key] for key in ("method", "route", "status", "model", "levelname")}
    assert facts == {
        "method": "POST",
        "route": "/v1/search",
        "status": 200,
        "model": "ensemble",
        "levelname": "INFO",
    }
    parts = [line for line in reported() if line["deployment"] in encoders]
    assert {(line["call"], line["status"], line["model"]) for line in parts} == {
        ("encode", "ok", model) for model in MODELS
    }
    assert all(0 < line["ms"] <= whole["ms"] for line in parts)


def test_the_lines_of_a_job_are_under_the_id_of_the_request_that_asked_for_it(client: httpx.Client) -> None:
    request_id = f"telemetry-{uuid.uuid4().hex}"
    body = {"kind": "sample", "args": {"model": MODELS[0], "precision": "fp7"}}
    job_id = client.post("/v1/jobs", json=body, headers={"X-Request-ID": request_id}).json()["job_id"]

    def ends() -> list[dict[str, Any]]:
        logs = client.get(f"/v1/jobs/{job_id}/logs").text
        reported = [
            json.loads(line) for line in logs.splitlines() if line.startswith("{") and "request_id" in line
        ]
        return [line for line in reported if "status" in line]

    assert eventually(lambda: [] if ends() else [job_id]) == []
    (end,) = ends()
    assert (end["request_id"], end["job_id"], end["status"]) == (request_id, job_id, "InvalidInput")


def test_no_log_holds_a_key_or_an_image(client: httpx.Client, log_folder: Path) -> None:
    image = fresh_image()
    headers = {"Authorization": f"Bearer {SECRET}", "X-API-Key": SECRET}
    last = f"telemetry-{uuid.uuid4().hex}"
    search(client, image, **headers)
    client.get(f"/v1/products/{SECRET}", params={"key": SECRET}, headers=headers)
    search(client, image, **headers, **{"X-Request-ID": last})
    assert (
        eventually(
            lambda: [] if any(line.get("request_id") == last for line in lines(log_folder)) else [last]
        )
        == []
    )
    written = "".join(path.read_text() for path in log_folder.glob("*.log"))
    assert SECRET not in written
    assert base64.b64encode(image).decode()[:40] not in written


def model_of(span: Span) -> str:
    found = [each.value.string_value for each in span.attributes if each.key == "vitrine.model"]
    return found[0] if found else ""


def test_a_callers_trace_goes_through_all_deployments_and_back(
    client: httpx.Client, traces: TraceReceiver
) -> None:
    trace, caller = uuid.uuid4().hex, uuid.uuid4().hex[:16]
    answer = search(client, fresh_image(), traceparent=f"00-{trace}-{caller}-01")

    def missing() -> list[str]:
        """Stages without a span, and parents of spans: they end, and so come, after their children."""
        found = traces.spans(trace)
        known = {span.span_id.hex() for span in found}
        parents = {span.parent_span_id.hex() for span in found} - known - {caller}
        of_models = {(span.name, model_of(span)) for span in found}
        wanted = {(stage, model) for stage in STAGES_OF_MODELS for model in MODELS}
        named = {"POST /v1/search", *STAGES} - {span.name for span in found}
        return sorted(parents | named | {" ".join(pair) for pair in wanted - of_models})

    assert eventually(missing) == []
    spans = traces.spans(trace)
    roots = {span.name for span in spans if span.parent_span_id.hex() == caller}
    assert roots <= {"POST /v1/search", "replica_handle_request Gateway __call__"}, "the stages are below"
    version, answered, span_id, flags = answer.headers["traceparent"].split("-")
    assert (version, answered, int(flags, 16) & 1) == ("00", trace, 1)
    assert span_id in {span.span_id.hex() for span in spans}


def test_a_request_that_nobody_traces_leaves_none(client: httpx.Client, traces: TraceReceiver) -> None:
    search(client, fresh_image())
    trace = uuid.uuid4().hex
    answer = search(client, fresh_image(), traceparent=f"00-{trace}-{uuid.uuid4().hex[:16]}-00")
    assert "traceparent" not in answer.headers
    marked = uuid.uuid4().hex
    search(client, fresh_image(), traceparent=f"00-{marked}-{uuid.uuid4().hex[:16]}-01")
    assert eventually(lambda: [] if traces.spans(marked) else [marked]) == []
    assert trace not in traces.traces
