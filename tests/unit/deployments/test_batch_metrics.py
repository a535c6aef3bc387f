"""What a batch tells: its size, how long it waited, how long it ran, and what the model could not take."""

import asyncio

import numpy as np
import pytest

from core.errors import InvalidImage, ModelUnavailable
from deployments.batch_metrics import BatchMetrics
from deployments.metrics import BATCH_SIZE, ERRORS, STAGE_SECONDS
from tests.told_metrics import ToldMetrics
from tests.unit.deployments.spans import Spans


def test_a_batch_tells_its_size_and_apart_how_long_it_waited_and_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    told = ToldMetrics(monkeypatch)
    BatchMetrics("dinov2", "image").batch(3, since_s=10.0, begun_s=10.5, ended_s=12.0)
    assert told.of(BATCH_SIZE, model="dinov2", input="image") == [3]
    assert told.of(STAGE_SECONDS, model="dinov2", stage="queue") == [0.5]
    assert told.of(STAGE_SECONDS, model="dinov2", stage="forward") == [1.5]


def test_only_what_the_model_could_not_take_is_an_error_of_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    told = ToldMetrics(monkeypatch)
    answers = [np.zeros(2), InvalidImage("no picture"), ModelUnavailable("gone"), InvalidImage("none either")]
    BatchMetrics("blip2", "image").errors(answers)
    assert told.of(ERRORS, model="blip2", stage="forward", type="invalid_image") == [1, 1]
    assert told.of(ERRORS, model="blip2", stage="forward", type="model_unavailable") == [1]
    assert len(told.of(ERRORS)) == 3


def test_an_input_of_a_traced_request_has_a_span_of_its_wait_and_of_its_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spans = Spans(monkeypatch)

    async def answered() -> None:
        now_s = asyncio.get_running_loop().time()
        BatchMetrics("dinov2", "image").item(since_s=now_s - 3, begun_s=now_s - 2, ended_s=now_s)

    with spans.root():
        asyncio.run(answered())
    for name, seconds in (("queue", 1), ("forward", 2)):
        ended = spans.ended[name]
        assert ended.attributes == {"vitrine.model": "dinov2"}
        assert ended.start_time is not None
        assert ended.end_time is not None
        assert ended.end_time - ended.start_time == pytest.approx(seconds * 1e9, abs=1e3)
