"""Alerts and the dashboard ask for metrics that Ray or Vitrine export."""

import json
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest
import ray

from core.errors import VitrineError
from core.telemetry import STAGES
from deployments.http.app import GROUPS
from deployments.observability.metrics import METRICS, Metric
from tests.support.manifests import of_kind
from tests.support.telemetry import conditions, queries, rules, selections

_SUFFIX = re.compile(r"_(total|bucket|sum|count)$")
_OURS = {f"ray_{metric.name}": metric for metric in METRICS}
_ADDED = {"application", "deployment", "replica", "le", "ray_io_group", "ray_io_cluster"}
"""Labels that Serve, the buckets of histograms, and the PodMonitor add."""


def sources_of_ray() -> Iterator[str]:
    """The text of everything that defines a metric of Ray's Python."""
    of_ray = Path(ray.__file__).parent
    for place in (of_ray / "serve" / "_private", of_ray / "dashboard" / "modules" / "reporter"):
        for path in place.rglob("*.py"):
            # Names that are put together of the protocol.
            yield path.read_text().replace("{protocol_name}", "http")


@cache
def defined_by_ray() -> str:
    return "\n".join(sources_of_ray())


def is_defined(metric: str, labels: Iterable[str]) -> bool:
    base = _SUFFIX.sub("", metric)
    ours = _OURS.get(metric) or _OURS.get(base)
    if ours is not None:
        return set(labels) <= {*ours.labels, *_ADDED} and (metric == base) == (ours.kind == "gauge")
    name = metric.removeprefix("ray_")
    return re.search(rf"[\"']({name}|{_SUFFIX.sub('', name)})[\"']", defined_by_ray()) is not None


def test_every_metric_that_is_asked_for_is_defined_somewhere_with_its_labels() -> None:
    asked = [selection for query in queries() for selection in selections(query)]
    assert len({metric for metric, _ in asked}) > 20
    assert [(metric, sorted(labels)) for metric, labels in asked if not is_defined(metric, labels)] == []


def test_what_nobody_defines_is_noticed() -> None:
    assert not is_defined("ray_serve_deployment_happiness", [])
    assert not is_defined("ray_vitrine_stage_seconds_bucket", ["stag"])
    assert not is_defined("ray_vitrine_stage_seconds", ["stage"]), "a histogram has no value of that name"
    assert is_defined("ray_vitrine_stage_seconds_bucket", ["stage", "model", "le", "application"])


def kinds(error: type[VitrineError] = VitrineError) -> set[str]:
    """The types of errors, as metrics name them."""
    return {error.kind}.union(*map(kinds, error.__subclasses__()))


def values_that_no_metric_has(query: str) -> list[tuple[str, str]]:
    """What a query asks for of our metrics in vain, by label."""
    known: dict[str, set[str]] = {
        "stage": {*STAGES, "request"},
        "type": kinds(),
        "route": {route.path for group in GROUPS for route in group.router.routes},
    }
    return [
        (label, value)
        for metric, label, pattern in conditions(query)
        if metric.startswith("ray_vitrine_")
        for value in pattern.split("|")
        if not any(re.fullmatch(value, each) for each in known[label])
    ]


def test_every_value_that_is_asked_for_is_one_that_the_metric_has() -> None:
    assert [found for query in queries() for found in values_that_no_metric_has(query)] == []
    misspelled = (
        'rate(ray_vitrine_errors_total{stage="serch", type=~"internal|gone", route="/v1/search"}[5m])'
    )
    assert values_that_no_metric_has(misspelled) == [("stage", "serch"), ("type", "gone")]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_metric_of_ours_is_on_the_dashboard_or_in_an_alert(metric: Metric) -> None:
    asked = {name for query in queries() for name, _ in selections(query)}
    assert any(_SUFFIX.sub("", name) == _SUFFIX.sub("", f"ray_{metric.name}") for name in asked)


def test_alerts_speak_of_labels_that_their_queries_keep() -> None:
    for rule in rules():
        spoken = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
        kept = set().union(*(labels for _, labels in selections(rule["expr"])))
        # A query that does not aggregate keeps all labels.
        assert spoken <= kept or "by (" not in rule["expr"], rule["alert"]


def test_the_dashboard_reaches_grafana_as_it_is_kept() -> None:
    (kept,) = (
        each
        for each in of_kind("overlays/gpu", "ConfigMap")
        if each["metadata"]["name"] == "vitrine-dashboard"
    )
    assert kept["metadata"]["labels"]["grafana_dashboard"] == "1"
    dashboard = json.loads(kept["data"]["dashboard.json"])
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"]) >= 10


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    (applied,) = of_kind("overlays/gpu", "PrometheusRule")
    assert applied["spec"]["groups"][0]["rules"] == rules()
    for rule in rules():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert {"summary", "description"} <= rule["annotations"].keys()


def test_the_monitor_finds_the_port_of_every_pod() -> None:
    (monitor,) = of_kind("overlays/gpu", "PodMonitor")
    assert monitor["spec"]["podMetricsEndpoints"][0]["port"] == "metrics"
    assert monitor["spec"]["selector"] == {"matchLabels": {"app.kubernetes.io/part-of": "vitrine"}}
