"""Telemetry: stages become metrics and spans, lines carry the id of their request, and metrics have good names."""

import asyncio
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
from ray.serve.context import _get_serve_request_context, _serve_request_context

from core.errors import InvalidImage
from core.telemetry import STAGES, Stage, answering, current_request_id, watch_stages
from deployments.observability.metrics import (
    ERRORS,
    METRICS,
    STAGE_SECONDS,
    Counter,
    Gauge,
    Histogram,
    Metric,
    table,
)
from deployments.observability.telemetry import (
    ServeLogHandler,
    answer_headers,
    as_request,
    called,
    error_type,
    id_headers,
    mark_failed,
    new_request_id,
    past_span,
    recorded_stage,
    span,
    span_processors,
    start_telemetry,
    trace_id,
)
from tests.support.telemetry import RecordedMetrics, Spans


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordedMetrics]:
    watch_stages(recorded_stage)
    yield RecordedMetrics(monkeypatch)
    watch_stages(None)


def test_a_stage_is_counted_and_timed_by_model(recorded: RecordedMetrics) -> None:
    with Stage("search", "dinov2"):
        pass
    (seconds,) = recorded.of(STAGE_SECONDS, stage="search", model="dinov2")
    assert 0 < seconds < 1
    assert recorded.of(ERRORS) == []


def test_a_stage_that_fails_is_counted_by_the_type_of_its_error(
    recorded: RecordedMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = Spans(monkeypatch)
    with spans.root(), pytest.raises(InvalidImage), Stage("preprocess", "blip2"):
        raise InvalidImage("the words of a stranger")
    assert recorded.of(ERRORS, stage="preprocess", model="blip2", type="invalid_image") == [1]
    assert len(recorded.of(STAGE_SECONDS, stage="preprocess")) == 1
    assert spans.ended["preprocess"].status.description == "invalid_image"


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (InvalidImage("x"), "invalid_image"),
        (asyncio.CancelledError(), "canceled"),
        (TimeoutError(), "deadline_exceeded"),
        (KeyError("x"), "internal"),
    ],
)
def test_errors_have_the_names_that_answers_give_them(error: BaseException, name: str) -> None:
    assert error_type(error) == name


def test_a_line_goes_to_the_logger_of_serve_with_the_id_of_its_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logger = logging.Logger("models.encoder")
    logger.addHandler(ServeLogHandler())
    with caplog.at_level("INFO", logger="ray.serve"), answering("r-1"):
        logger.warning("%s does not run", "dinov2")
        logger.debug("not wanted")
    (record,) = caplog.records
    assert (record.getMessage(), vars(record)["request_id"]) == ("dinov2 does not run", "r-1")


def test_outside_of_serve_nothing_is_changed() -> None:
    start_telemetry()
    assert logging.getLogger("deployments").propagate


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    return Spans(monkeypatch)


def test_nothing_is_made_of_a_request_that_is_not_traced(spans: Spans) -> None:
    with span("search") as current:
        mark_failed(current, "internal")
        past_span("queue", 1.0, 2.0, now_s=3.0)
    assert not current.is_recording()
    assert (answer_headers(), trace_id(), spans.ended) == ([], None, {})


def test_a_span_is_a_child_of_what_runs(spans: Spans) -> None:
    with spans.root() as trace, span("search", **{"vitrine.model": "dinov2"}):
        assert trace_id() == trace
    search, root = spans.ended["search"], spans.ended["replica"]
    assert search.parent is not None
    assert search.parent.span_id == root.context.span_id
    assert search.attributes == {"vitrine.model": "dinov2"}


def test_a_span_of_the_past_has_its_times(spans: Spans) -> None:
    with spans.root():
        past_span("queue", began_s=100.0, ended_s=100.25, now_s=101.0)
    queue, root = spans.ended["queue"], spans.ended["replica"]
    assert queue.start_time is not None
    assert queue.end_time is not None
    assert root.end_time is not None
    assert queue.end_time - queue.start_time == pytest.approx(0.25e9, abs=1e3)
    assert root.end_time - queue.start_time >= 1e9


def test_an_error_is_recorded_by_its_type_without_its_message(spans: Spans) -> None:
    def encode() -> None:
        with span("encode") as current:
            mark_failed(current, "invalid_image")
            raise ValueError("secret")

    with spans.root(), pytest.raises(ValueError, match="secret"):
        encode()
    ended = spans.ended["encode"]
    assert (ended.status.description, ended.attributes) == ("invalid_image", {"error.type": "invalid_image"})
    assert ended.events == ()


def test_the_answer_names_its_trace_in_the_form_of_the_w3c(spans: Spans) -> None:
    with spans.root() as trace, span("request") as current:
        headers = dict(answer_headers())
    span_id = current.get_span_context().span_id
    *ids, flags = headers[b"traceparent"].decode().split("-")
    assert ids == ["00", trace, f"{span_id:016x}"]
    assert int(flags, 16) & 1, "the bit that says that it is recorded"
    assert headers[b"traceresponse"] == headers[b"traceparent"]


def test_serve_gets_a_processor_that_sends_by_otlp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    (processor,) = span_processors()
    processor.shutdown()


@contextmanager
def in_serve(request_id: str) -> Iterator[None]:
    """Be a replica that Serve has called for a request."""
    context = replace(_get_serve_request_context(), request_id=request_id, route="/v1/search")
    token = _serve_request_context.set(context)
    yield
    _serve_request_context.reset(token)


def test_an_id_reaches_handles_and_stores_for_the_time_of_the_request() -> None:
    with as_request("shop-17"):
        assert _get_serve_request_context().request_id == current_request_id() == "shop-17"
    assert _get_serve_request_context().request_id == current_request_id() == ""


def test_the_rest_of_what_serve_knows_stays() -> None:
    with in_serve("not a clean id"), as_request("shop-17"):
        assert _get_serve_request_context().route == "/v1/search"
        assert _get_serve_request_context().request_id == "shop-17"


def test_a_replica_works_for_the_request_of_its_caller() -> None:
    with in_serve("shop-17"), called("encode", "openclip", 1):
        assert current_request_id() == "shop-17"


def test_the_caller_learns_its_id_once() -> None:
    assert id_headers("shop-17") == {"X-Request-ID": "shop-17"}
    with in_serve("shop-17"):
        assert id_headers("shop-17") == {}, "Serve's server echoes it"
        assert id_headers("another") == {"X-Request-ID": "another"}


def test_work_that_nobody_asked_for_has_ids_that_say_what_it_is() -> None:
    assert new_request_id("repair").startswith("repair-")
    assert len({new_request_id() for _ in range(3)}) == 3


UNITS = ("seconds", "images", "size")


def test_every_metric_has_a_row() -> None:
    rows = [line for line in table().splitlines() if line.startswith("| `ray_vitrine_")]
    assert len(rows) == len(METRICS) > 10


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_say_what_is_counted_and_in_which_unit(metric: Metric) -> None:
    # https://prometheus.io/docs/practices/naming/
    assert re.fullmatch(r"vitrine_[a-z_]+", metric.name)
    assert metric.name.endswith("_total") == isinstance(metric, Counter)
    assert isinstance(metric, Counter) or metric.name.endswith(UNITS)
    assert metric.help.endswith(".")
    assert not {"application", "deployment", "replica"} & set(metric.labels), "Serve adds these"
    if isinstance(metric, Histogram):
        assert list(metric.buckets) == sorted(set(metric.buckets))


def test_every_metric_has_a_name_of_its_own() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_every_stage_is_explained() -> None:
    assert [stage for stage in STAGES if f"`{stage}`" not in STAGE_SECONDS.help] == []


@pytest.mark.parametrize("record", ["add", "set", "observe"])
def test_a_metric_that_ray_refuses_is_logged_once_and_fails_nobody(
    record: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kinds: dict[str, type[Metric]] = {"add": Counter, "set": Gauge, "observe": Histogram}
    metric = kinds[record](f"vitrine_{record}_seconds", "Refused.")

    def refuse(_value: float, _labels: dict[str, str]) -> None:
        raise ValueError("Ray has shut down")

    monkeypatch.setitem(vars(metric), "_exported", SimpleNamespace(inc=refuse, set=refuse, observe=refuse))
    for _ in range(3):
        getattr(metric, record)(1.0)
    assert [each.getMessage() for each in caplog.records] == [
        f"{metric.name} cannot be recorded; this is logged once"
    ]
    assert "Ray has shut down" in caplog.text


def test_counting_nothing_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = RecordedMetrics(monkeypatch)
    for metric in METRICS:
        if isinstance(metric, Counter):
            metric.add(0, **dict.fromkeys(metric.labels, "x"))
    assert recorded.values == []
