"""The list of metrics keeps to Prometheus' conventions, and the docs hold it."""

import re
from types import SimpleNamespace

import pytest

from core.telemetry import STAGES
from deployments.observability.metrics import (
    METRICS,
    STAGE_SECONDS,
    Counter,
    Gauge,
    Histogram,
    Metric,
    table,
)
from tests.support.telemetry import RecordedMetrics

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
