"""Alerts and the dashboard ask for metrics that Ray or Vitrine export."""

import json
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest
import ray
from ray.serve._private.constants import RAY_SERVE_HAPROXY_METRICS_PORT

from core.errors import VitrineError
from core.telemetry import STAGES
from deployments.http.app import GROUPS
from deployments.observability.metrics import METRICS, Metric
from tests.support.manifests import ROOT, of_kind, ray_pods, rayservice
from tests.support.telemetry import OF_OTHERS, conditions, queries, rules, selections

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
    if metric in OF_OTHERS:
        return set(labels) <= {*OF_OTHERS[metric], *_ADDED}
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


def test_the_monitor_finds_the_ports_of_every_pod_that_serves() -> None:
    (monitor,) = of_kind("overlays/gpu", "PodMonitor")
    assert monitor["spec"]["selector"] == {"matchLabels": {"app.kubernetes.io/part-of": "vitrine"}}
    scraped = {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]}
    assert scraped == {"metrics", "haproxy"}
    (policy,) = (
        p for p in of_kind("overlays/gpu", "NetworkPolicy") if p["metadata"]["name"] == "vitrine-metrics"
    )
    opened = {port["port"] for port in policy["spec"]["ingress"][0]["ports"]}
    for name, pod in ray_pods():
        ports = {port["name"]: port["containerPort"] for port in pod["spec"]["containers"][0]["ports"]}
        if name.startswith("overlays/"):
            assert {ports[each] for each in scraped} == opened, name
    # Ray's default, which no pod changes.
    assert RAY_SERVE_HAPROXY_METRICS_PORT in opened


def test_the_operator_of_prometheus_selects_what_it_shall() -> None:
    for kind in ("PodMonitor", "PrometheusRule"):
        (found,) = of_kind("overlays/gpu", kind)
        # The chart's own selectors ask for the name of its release.
        assert found["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    assert "`release: kube-prometheus-stack`" in (ROOT / "docs" / "operations.md").read_text()


def test_an_alert_that_wants_more_replicas_says_that_pods_are_another_number() -> None:
    wanting = [rule for rule in rules() if "max_replicas" in rule["annotations"]["description"]]
    assert len(wanting) >= 3
    assert all("live RayCluster" in rule["annotations"]["description"] for rule in wanting)


@pytest.mark.parametrize("heading", ["More replicas", "A pending upgrade"])
def test_the_headings_that_alerts_name_are_on_the_page(heading: str) -> None:
    named = [
        rule for rule in rules() if f"docs/operations.md, {heading}" in rule["annotations"]["description"]
    ]
    assert named
    assert re.search(rf"(?m)^#+ {heading}$", (ROOT / "docs" / "operations.md").read_text())


def test_pages_say_after_how_long_an_alert_fires() -> None:
    by_name = {rule["alert"]: rule for rule in rules()}
    operations, backup = ((ROOT / "docs" / name).read_text() for name in ("operations.md", "backup.md"))
    minutes = by_name["VitrineUpgradePending"]["for"].removesuffix("m")
    assert f"`VitrineUpgradePending` fires after {minutes} minutes" in operations
    (seconds,) = re.findall(r"> (\d+)", by_name["VitrineBackupLate"]["expr"])
    assert f"fires when none has succeeded for {int(seconds) // 3600} hours" in backup


def test_what_is_not_there_is_noticed() -> None:
    by_name = {rule["alert"]: rule["expr"] for rule in rules()}
    for each in (
        "ray_serve_application_status",
        'haproxy_frontend_http_responses_total{proxy="http_frontend"}',
    ):
        assert f"absent({each})" in by_name["VitrineMetricsAbsent"]
    assert "haproxy_frontend_http_responses_total" in by_name["VitrineProxyRefuses"]
    (backup,) = of_kind("jobs/backup", "CronJob")
    assert f'cronjob="{backup["metadata"]["name"]}"' in by_name["VitrineBackupLate"]
    assert "absent(" in by_name["VitrineBackupLate"], "a backup that never ran"
    assert f'name="{rayservice("overlays/gpu")["metadata"]["name"]}"' in by_name["VitrineUpgradePending"]
