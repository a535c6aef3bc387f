"""Alerts and the dashboard ask for metrics that Ray or Vitrine export."""

import json
import re
from functools import cache
from pathlib import Path

import ray

from tests.unit.k8s.rendering import K8S, ROOT, of_kind

_METRIC = re.compile(r"\bray_[a-z0-9_]+")
_SUFFIX = re.compile(r"_(total|bucket|sum|count)$")
_ROOMS = ("core", "models", "catalog", "milvus", "deployments", "jobs")


def queries() -> list[str]:
    dashboard = json.loads((K8S / "monitoring" / "dashboard.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    (rules,) = of_kind("overlays/gpu", "PrometheusRule")
    return asked + [rule["expr"] for group in rules["spec"]["groups"] for rule in group["rules"]]


@cache
def sources() -> str:
    """The text of everything that defines a metric: Ray's Python, and our rooms."""
    of_ray = Path(ray.__file__).parent
    places = [of_ray / "serve" / "_private", of_ray / "dashboard" / "modules" / "reporter"]
    places += [ROOT / room for room in _ROOMS]
    text = "\n".join(path.read_text() for place in places for path in place.rglob("*.py"))
    # Names that are put together of the protocol or the outcome.
    text = text.replace("{protocol_name}", "http")
    return text + "\n" + "\n".join(text.replace("{outcome}", outcome) for outcome in ("hits", "misses"))


def metrics() -> set[str]:
    return {name for query in queries() for name in _METRIC.findall(query)} - {
        "ray_io_group",
        "ray_io_cluster",
    }


def is_defined(metric: str) -> bool:
    name = metric.removeprefix("ray_")
    return re.search(rf"[\"']({name}|{_SUFFIX.sub('', name)})[\"']", sources()) is not None


def test_every_metric_that_is_asked_for_is_defined_somewhere() -> None:
    asked = metrics()
    assert len(asked) > 10
    assert [metric for metric in sorted(asked) if not is_defined(metric)] == []


def test_a_metric_that_nobody_defines_is_noticed() -> None:
    assert not is_defined("ray_serve_deployment_happiness")


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
    (rules,) = of_kind("overlays/gpu", "PrometheusRule")
    for rule in rules["spec"]["groups"][0]["rules"]:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert {"summary", "description"} <= rule["annotations"].keys()


def test_the_monitor_finds_the_port_of_every_pod() -> None:
    (monitor,) = of_kind("overlays/gpu", "PodMonitor")
    assert monitor["spec"]["podMetricsEndpoints"][0]["port"] == "metrics"
    assert monitor["spec"]["selector"] == {"matchLabels": {"app.kubernetes.io/part-of": "vitrine"}}
