"""A comparison as tables for a terminal."""

from collections.abc import Iterator

from rich.console import Group
from rich.table import Table
from rich.text import Text

from jobs.evaluation.bootstrap import Estimate
from jobs.evaluation.result import EvaluationResult, Figures


def tables(result: EvaluationResult) -> Group:
    """One table of means and one of differences for each kind of query, the notes, and the gate's words."""
    metrics = result.config.metrics
    parts: list[Table | Text] = []
    for figures in result.figures:
        parts.append(_means(figures, metrics))
        if figures.differences:
            parts.append(_differences(figures, result.config.gate.metric, result.config.confidence))
    parts += [Text(note) for note in result.notes]
    if result.pool is not None:
        parts.append(Text(f"searched among {result.pool} products that every collection holds"))
    if result.decision is not None:
        style = "bold green" if result.decision.passed else "bold red"
        parts.append(Text(f"gate {result.decision.reason}", style))
    return Group(*parts)


def _means(figures: Figures, metrics: tuple[str, ...]) -> Table:
    table = Table(title=f"{figures.queries} queries: {figures.kind}")
    table.add_column("model")
    for metric in metrics:
        table.add_column(metric, justify="right")
    for name, estimates in figures.estimates.items():
        table.add_row(
            name, *(f"{estimates[metric].mean:.3f}\n{_margins(estimates[metric])}" for metric in metrics)
        )
    return table


def _differences(figures: Figures, metric: str, confidence: float) -> Table:
    table = Table(title=f"differences in {metric}, query by query, with {confidence:.0%} intervals")
    for heading in ("first", "second", "first - second", "interval", "queries"):
        table.add_column(heading, justify="left" if heading in ("first", "second") else "right")
    for each in _of(figures, metric):
        table.add_row(*each)
    return table


def _of(figures: Figures, metric: str) -> Iterator[tuple[str, ...]]:
    for each in figures.differences:
        if each.metric == metric:
            found = each.estimate
            yield each.first, each.second, f"{found.mean:+.4f}", _interval(found), str(found.queries)


def _interval(found: Estimate) -> str:
    return "" if found.low is None or found.high is None else f"{found.low:+.4f} to {found.high:+.4f}"


def _margins(found: Estimate) -> str:
    if found.low is None or found.high is None:
        return ""
    return f"-{found.mean - found.low:.3f} +{found.high - found.mean:.3f}"
