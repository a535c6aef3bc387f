"""Every request leaves metrics, a line, where traced a span, and in none of them what was sent."""

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, HTTPException, Request

from core.errors import InvalidImage, Overloaded
from core.telemetry import current_request_id
from deployments.http import errors
from deployments.http.middleware import RequestId
from deployments.observability.access_log import AccessLog
from deployments.observability.metrics import ERRORS, REQUEST_SECONDS, REQUESTS
from deployments.observability.telemetry import note_model
from tests.support.telemetry import RecordedMetrics, Spans

pytestmark = pytest.mark.anyio
SECRET = "vk_5f0c2a9be417_this-is-a-secret"
IMAGE = base64.b64encode(b"\x89PNG the bytes of an image").decode()


def application() -> FastAPI:
    app = FastAPI()
    errors.install(app)

    @app.post("/v1/search")
    async def search(request: Request) -> dict[str, str]:
        for model in (await request.json())["models"]:
            note_model(model)
        return {"request_id": current_request_id()}

    @app.get("/v1/products/{product_id}")
    async def product(product_id: str) -> None:
        raise {
            "bad": InvalidImage("no image"),
            "busy": Overloaded("later"),
            "gone": asyncio.CancelledError(),
            "teapot": HTTPException(418),
        }.get(product_id, KeyError(product_id))

    @app.get("/health/live")
    async def live() -> None:
        return None

    app.add_middleware(AccessLog, routes=app.routes)
    app.add_middleware(RequestId)
    return app


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(application(), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as opened:
        yield opened


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> RecordedMetrics:
    return RecordedMetrics(monkeypatch)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, Any]]]:
    caplog.set_level("DEBUG", logger="deployments.observability.access_log")
    keys = ("request_id", "method", "route", "status", "ms", "model", "error", "trace_id", "refused")

    def found() -> list[dict[str, Any]]:
        mine = [record for record in caplog.records if record.name == "deployments.observability.access_log"]
        return [
            {"level": record.levelname} | {key: vars(record)[key] for key in keys if key in vars(record)}
            for record in mine
        ]

    return found


async def test_a_request_is_logged_with_id_route_status_time_and_model(
    client: httpx.AsyncClient, recorded: RecordedMetrics, lines: Any
) -> None:
    answer = await client.post("/v1/search", json={"models": ["dinov2"]}, headers={"X-Request-ID": "shop-17"})
    (line,) = lines()
    assert 0 < line.pop("ms") < 10_000
    assert line == {
        "level": "INFO",
        "request_id": "shop-17",
        "method": "POST",
        "route": "/v1/search",
        "status": 200,
        "model": "dinov2",
    }
    assert answer.json() == {"request_id": "shop-17"}
    assert recorded.of(REQUESTS, route="/v1/search", method="POST", status="200", model="dinov2") == [1]
    assert len(recorded.of(REQUEST_SECONDS, route="/v1/search", model="dinov2")) == 1


async def test_several_models_are_one_label_and_named_in_the_line(
    client: httpx.AsyncClient, recorded: RecordedMetrics, lines: Any
) -> None:
    await client.post("/v1/search", json={"models": ["dinov2", "blip2", "dinov2"]})
    assert lines()[0]["model"] == "dinov2,blip2"
    assert recorded.of(REQUESTS, model="several") == [1]


@pytest.mark.parametrize(
    ("product", "status", "error", "level"),
    [
        ("bad", 422, "invalid_image", "INFO"),
        ("busy", 503, "overloaded", "WARNING"),
        ("teapot", 418, "invalid_request", "INFO"),
        ("other", 500, "internal", "WARNING"),
    ],
)
async def test_an_error_is_recorded_by_its_type(
    client: httpx.AsyncClient,
    recorded: RecordedMetrics,
    lines: Any,
    product: str,
    status: int,
    error: str,
    level: str,
) -> None:
    answer = await client.get(f"/v1/products/{product}")
    (line,) = lines()
    assert (answer.status_code, line["status"], line["error"], line["level"]) == (
        status,
        status,
        error,
        level,
    )
    assert line["route"] == "/v1/products/{product_id}"
    assert recorded.of(REQUESTS, status=str(status), model="none") == [1]
    assert recorded.of(ERRORS, stage="request", type=error) == [1]


async def test_refusals_for_want_of_room_share_a_line_and_each_is_counted(
    client: httpx.AsyncClient, recorded: RecordedMetrics, lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        await client.get("/v1/products/busy")
    monkeypatch.setattr("deployments.observability.access_log.REFUSALS_LINE_S", 0.0)
    await client.get("/v1/products/busy")
    await client.get("/v1/products/bad")
    assert [(line["error"], line.get("refused")) for line in lines()] == [
        ("overloaded", 1),
        ("overloaded", 3),
        ("invalid_image", None),
    ]
    assert recorded.of(REQUESTS, status="503", model="none") == [1, 1, 1, 1]


async def test_a_client_that_goes_away_is_no_fault_of_the_service(
    client: httpx.AsyncClient, recorded: RecordedMetrics, lines: Any
) -> None:
    with pytest.raises(asyncio.CancelledError):
        await client.get("/v1/products/gone")
    assert (lines()[0]["status"], lines()[0]["error"], lines()[0]["level"]) == (499, "canceled", "INFO")


async def test_paths_and_methods_of_strangers_make_no_labels(
    client: httpx.AsyncClient, recorded: RecordedMetrics
) -> None:
    await client.request("BREW", "/v1/nothing/of/ours")
    await client.request("HEAD", "/v1/products/7")
    labels = [labels for name, _, labels in recorded.values if name == REQUESTS.name]
    assert [(each["route"], each["method"]) for each in labels] == [
        ("unmatched", "OTHER"),
        ("/v1/products/{product_id}", "HEAD"),
    ]


async def test_health_checks_are_for_debugging_only(client: httpx.AsyncClient, lines: Any) -> None:
    await client.get("/health/live")
    assert [line["level"] for line in lines()] == ["DEBUG"]


async def test_no_line_holds_a_key_or_an_image(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, recorded: RecordedMetrics
) -> None:
    caplog.set_level("DEBUG")
    logging.getLogger("httpx").setLevel("WARNING")
    headers = {
        "Authorization": f"Bearer {SECRET}",
        "X-API-Key": SECRET,
        "X-Request-ID": f"{SECRET} {IMAGE}",
    }
    body = {"models": ["dinov2"], "query": [{"image": IMAGE}]}
    await client.post("/v1/search", json=body, headers=headers, params={"api_key": SECRET})
    await client.get(f"/v1/products/{SECRET}", headers=headers)
    written = json.dumps(
        [vars(record) for record in caplog.records if "access_log" in record.name], default=str
    )
    assert written.count("request_id") >= 2
    assert SECRET not in written
    assert IMAGE[:12] not in written
    assert SECRET not in json.dumps(recorded.values)


async def test_a_traced_request_is_a_span_and_the_caller_learns_its_trace(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, lines: Any, recorded: RecordedMetrics
) -> None:
    spans = Spans(monkeypatch)
    with spans.root() as trace:
        answer = await client.post("/v1/search", json={"models": ["dinov2"]})
    assert answer.headers["traceparent"].split("-")[1] == trace
    assert lines()[0]["trace_id"] == trace
    ended = spans.ended["POST /v1/search"]
    assert ended.attributes is not None
    assert ended.attributes["http.route"] == "/v1/search"
    assert ended.attributes["http.response.status_code"] == 200
    assert ended.attributes["vitrine.request_id"] == answer.headers["x-request-id"]


async def test_a_request_that_is_not_traced_gets_no_such_header(
    client: httpx.AsyncClient, recorded: RecordedMetrics
) -> None:
    answer = await client.get("/health/live", headers={"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"})
    assert "traceparent" not in answer.headers
