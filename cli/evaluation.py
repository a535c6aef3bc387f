"""An evaluation's result as tables."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cli.tables import facts, table

if TYPE_CHECKING:
    from rich.console import RenderableType


def evaluation(job_id: str, result: Mapping[str, Any]) -> "RenderableType":
    """Draw what each contender reaches, with its interval, and what the gate says."""
    from rich.console import Group

    gate = result.get("gate") or {}
    known = {
        "job": job_id,
        "gate": gate.get("reason"),
        "notes": result.get("notes"),
        "report": f"vitrine jobs report {job_id} FILE",
    }
    return Group(*(_figures(each) for each in result["figures"]), facts(known))


def _figures(figures: Mapping[str, Any]) -> "RenderableType":
    estimates = figures["estimates"]
    metrics = dict.fromkeys(metric for each in estimates.values() for metric in each)
    rows = [(metric, *(_estimate(each.get(metric)) for each in estimates.values())) for metric in metrics]
    return table(("", *estimates), rows, title=f"{figures['kind']}, {figures['queries']} queries")


def _estimate(estimate: Mapping[str, Any] | None) -> str | None:
    if estimate is None or estimate.get("mean") is None:
        return None
    return f"{estimate['mean']:.3f} ({estimate['low']:.3f} to {estimate['high']:.3f})"
