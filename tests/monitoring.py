"""What alerts and the dashboard ask of Prometheus."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import yaml

MONITORING = Path(__file__).parents[1] / "k8s" / "monitoring"


@cache
def rules() -> list[dict[str, Any]]:
    """The alerts."""
    content = yaml.safe_load((MONITORING / "alerts.yaml").read_text())
    return [rule for group in content["spec"]["groups"] for rule in group["rules"]]


@cache
def queries() -> list[str]:
    """The queries of all panels and of all alerts."""
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return panels + [rule["expr"] for rule in rules()]
