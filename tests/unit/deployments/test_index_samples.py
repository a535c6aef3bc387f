"""The gauges of the index come from one sample of the ledger, at a pace that the database can bear."""

from types import SimpleNamespace
from typing import cast

import pytest

from catalog.ledger_queries import IndexProgress, SqlIndexProgress
from core.errors import Unavailable
from core.types import EncoderInfo, LedgerCounts
from deployments.observability.metrics import (
    CATALOG_IMAGES,
    INDEX_AGE,
    INDEXED_IMAGES,
    LEDGER_GAP,
    QUARANTINED,
    SAMPLED_AT,
)
from deployments.replicas.repair import IndexSamples
from tests.support.local_encoder import LocalEncoder
from tests.support.telemetry import RecordedMetrics

pytestmark = pytest.mark.anyio


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> RecordedMetrics:
    return RecordedMetrics(monkeypatch)


class Progress:
    """Says the same of every collection; remembers which were asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.away = False

    def of(self, collection: str) -> IndexProgress:
        self.asked.append(collection)
        if self.away:
            raise Unavailable("the database is away")
        return IndexProgress(LedgerCounts(images=10, indexed=6, failed=1, missing=3), age_s=42.0)


def samples(progress: Progress, interval_s: float = 30) -> IndexSamples:
    return IndexSamples(cast(SqlIndexProgress, progress), interval_s)


async def test_a_sample_says_how_far_each_model_has_come(recorded: RecordedMetrics) -> None:
    progress = Progress()
    encoders = [LocalEncoder("first"), LocalEncoder("second")]
    assert await samples(progress).sample(encoders) == 30
    for model in ("first", "second"):
        assert recorded.of(INDEXED_IMAGES, model=model) == [6]
        assert recorded.of(LEDGER_GAP, model=model) == [3]
        assert recorded.of(QUARANTINED, model=model) == [1]
        assert recorded.of(INDEX_AGE, model=model) == [42]
        assert len(recorded.of(SAMPLED_AT, model=model)) == 1
    assert recorded.of(CATALOG_IMAGES) == [10, 10]
    assert progress.asked == [(await encoder.describe()).collection for encoder in encoders]


async def test_a_model_that_goes_away_is_sampled_as_it_served_last(recorded: RecordedMetrics) -> None:
    progress = Progress()
    sampled = samples(progress)
    encoder = LocalEncoder("first")
    await sampled.sample([encoder])
    encoder.away = True
    await sampled.sample([encoder])
    assert len(set(progress.asked)) == 1
    assert len(recorded.of(LEDGER_GAP, model="first")) == 2


async def test_a_model_that_never_served_has_no_figures(recorded: RecordedMetrics) -> None:
    encoder = LocalEncoder("first")
    encoder.away = True
    await samples(Progress()).sample([encoder])
    assert recorded.values == []


async def test_a_database_that_is_away_leaves_the_figures_and_their_time(
    recorded: RecordedMetrics, caplog: pytest.LogCaptureFixture
) -> None:
    progress = Progress()
    progress.away = True
    assert await samples(progress).sample([LocalEncoder("first")]) == 30
    assert recorded.values == []
    assert "the ledger of first cannot be sampled: the database is away" in caplog.text


@pytest.mark.parametrize(("model_s", "database_s", "pause_s"), [(0, 5, 100), (30, 0, 30)])
async def test_the_pause_follows_how_long_the_database_reads_and_not_how_long_a_model_takes(
    model_s: float,
    database_s: float,
    pause_s: float,
    recorded: RecordedMetrics,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], time=lambda: 0.0)
    monkeypatch.setattr("deployments.replicas.repair.time", clock)

    class Slow(LocalEncoder):
        async def describe(self) -> EncoderInfo:
            now[0] += model_s
            return await super().describe()

    class Reading(Progress):
        def of(self, collection: str) -> IndexProgress:
            now[0] += database_s
            return super().of(collection)

    assert await samples(Reading()).sample([Slow("first")]) == pause_s
