"""Stages become metrics and spans; log lines go to Serve's logger under the request's id."""

import asyncio
import logging
from collections.abc import Iterator

import pytest

from core.errors import InvalidImage
from core.request_ids import answering
from core.stages import Stage, watch_stages
from deployments.metrics import ERRORS, STAGE_SECONDS
from deployments.telemetry import ToServe, WatchedStage, error_type, start_telemetry
from tests.told_metrics import ToldMetrics
from tests.unit.deployments.spans import Spans


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[ToldMetrics]:
    watch_stages(WatchedStage)
    yield ToldMetrics(monkeypatch)
    watch_stages(None)


def test_a_stage_is_counted_and_timed_by_model(told: ToldMetrics) -> None:
    with Stage("search", "dinov2"):
        pass
    (seconds,) = told.of(STAGE_SECONDS, stage="search", model="dinov2")
    assert 0 < seconds < 1
    assert told.of(ERRORS) == []


def test_a_stage_that_fails_is_counted_by_the_type_of_its_error(
    told: ToldMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = Spans(monkeypatch)
    with spans.root(), pytest.raises(InvalidImage), Stage("preprocess", "blip2"):
        raise InvalidImage("the words of a stranger")
    assert told.of(ERRORS, stage="preprocess", model="blip2", type="invalid_image") == [1]
    assert len(told.of(STAGE_SECONDS, stage="preprocess")) == 1
    assert spans.ended["preprocess"].status.description == "invalid_image"


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (InvalidImage("x"), "invalid_image"),
        (asyncio.CancelledError(), "cancelled"),
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
    logger.addHandler(ToServe())
    with caplog.at_level("INFO", logger="ray.serve"), answering("r-1"):
        logger.warning("%s does not run", "dinov2")
        logger.debug("not wanted")
    (record,) = caplog.records
    assert (record.getMessage(), vars(record)["request_id"]) == ("dinov2 does not run", "r-1")


def test_outside_of_serve_nothing_is_changed() -> None:
    start_telemetry()
    assert logging.getLogger("deployments").propagate
