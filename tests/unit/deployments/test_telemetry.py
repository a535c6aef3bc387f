"""Telemetry: stages become metrics and spans, lines carry the id of their request."""

import asyncio
import logging
from collections.abc import Iterator

import pytest

from core.errors import InvalidImage
from core.telemetry import Stage, answering, watch_stages
from deployments.observability.metrics import ERRORS, STAGE_SECONDS
from deployments.observability.telemetry import (
    ServeLogHandler,
    answer_headers,
    error_type,
    mark_failed,
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
