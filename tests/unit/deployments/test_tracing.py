"""Spans are made below a recorded one only, say errors by their type, and lead back to the caller."""

import pytest

from deployments.tracing import answer_headers, mark_failed, past_span, span, span_processors, trace_id
from tests.unit.deployments.spans import Spans


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


def test_an_error_is_told_by_its_type_without_its_message(spans: Spans) -> None:
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
