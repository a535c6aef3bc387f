"""From values by query to figures with intervals."""

from collections.abc import Mapping, Sequence
from itertools import combinations

from jobs.evaluation.bootstrap import Bootstrap, estimate, paired_difference
from jobs.evaluation.queries import JudgedQuery
from jobs.evaluation.result import Difference, Figures, Values


def figures(
    values: Values, queries: Sequence[JudgedQuery], metrics: Sequence[str], how: Bootstrap
) -> tuple[Figures, ...]:
    """Sum up each kind of query by itself, over those contenders that answered queries of that kind."""
    kinds = dict.fromkeys(query.kind for query in queries)
    return tuple(
        _of_kind(kind, {query.query_id for query in queries if query.kind == kind}, values, metrics, how)
        for kind in kinds
    )


def _of_kind(kind: str, chosen: set[str], values: Values, metrics: Sequence[str], how: Bootstrap) -> Figures:
    parts = {
        name: {metric: _part(by_metric[metric], chosen) for metric in metrics}
        for name, by_metric in values.items()
    }
    answered = {name: part for name, part in parts.items() if part[metrics[0]]}
    estimates = {
        name: {metric: estimate(list(part[metric].values()), how) for metric in metrics}
        for name, part in answered.items()
    }
    return Figures(kind, len(chosen), estimates, _differences(answered, metrics, how))


def _differences(
    parts: Mapping[str, Mapping[str, Mapping[str, float]]], metrics: Sequence[str], how: Bootstrap
) -> tuple[Difference, ...]:
    found = (
        (second, first, metric, paired_difference(parts[second][metric], parts[first][metric], how))
        for first, second in combinations(parts, 2)
        for metric in metrics
    )
    return tuple(Difference(a, b, metric, each) for a, b, metric, each in found if each is not None)


def _part(values: Mapping[str, float], chosen: set[str]) -> dict[str, float]:
    return {query: value for query, value in values.items() if query in chosen}
