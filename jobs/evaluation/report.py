"""A comparison as one HTML file: the figures, and side by side what is found where models differ most."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from catalog.opening import Catalog
from jobs.evaluation.queries import JudgedQuery
from jobs.evaluation.result import EvaluationResult
from jobs.evaluation.thumbnails import Thumbnails
from models.images import ImageLimits

_TEMPLATE = "report.html.j2"


@dataclass(frozen=True, slots=True)
class ShownHit:
    """A product in a list; `grade` is 0 where it does not answer the query."""

    product_id: str
    thumbnail: str | None
    grade: int


@dataclass(frozen=True, slots=True)
class ShownList:
    """What one contender found, and how well that did."""

    contender: str
    value: float
    hits: tuple[ShownHit, ...]


@dataclass(frozen=True, slots=True)
class ShownQuery:
    """A query with the contenders' lists, best first."""

    query: JudgedQuery
    thumbnail: str | None
    spread: float
    lists: tuple[ShownList, ...]


def report(result: EvaluationResult, catalog: Catalog, limits: ImageLimits) -> str:
    """Write the page; it loads nothing from anywhere."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    thumbnails = Thumbnails(catalog, limits)
    shown = [_shown(result, query, spread, thumbnails) for query, spread in most_different(result)]
    return environment.get_template(_TEMPLATE).render(
        result=result, metrics=result.config.metrics, headline=result.config.gate.metric, shown=shown
    )


def most_different(result: EvaluationResult) -> list[tuple[JudgedQuery, float]]:
    """The queries between whose best and worst answer the gate's metric differs most, and by how much."""
    by_contender = {name: values[result.config.gate.metric] for name, values in result.values.items()}
    spreads = [(query, _spread(by_contender, query.query_id)) for query in result.queries]
    apart = sorted((each for each in spreads if each[1] > 0), key=lambda each: (-each[1], each[0].query_id))
    return apart[: result.config.shown_queries]


def _spread(by_contender: Mapping[str, Mapping[str, float]], query_id: str) -> float:
    found = [values[query_id] for values in by_contender.values() if query_id in values]
    return max(found) - min(found) if found else 0.0


def _shown(result: EvaluationResult, query: JudgedQuery, spread: float, thumbnails: Thumbnails) -> ShownQuery:
    lists = [
        ShownList(
            name, values[result.config.gate.metric][query.query_id], _hits(result, name, query, thumbnails)
        )
        for name, values in result.values.items()
        if query.query_id in values[result.config.gate.metric]
    ]
    own = None if query.picture is None else thumbnails.of_file(query.picture)
    return ShownQuery(query, own, spread, _best_first(lists))


def _hits(
    result: EvaluationResult, contender: str, query: JudgedQuery, thumbnails: Thumbnails
) -> tuple[ShownHit, ...]:
    return tuple(
        ShownHit(hit.product_id, thumbnails.of_image(hit.image_id), query.grades.get(hit.product_id, 0))
        for hit in result.hits[contender][query.query_id]
    )


def _best_first(lists: Sequence[ShownList]) -> tuple[ShownList, ...]:
    return tuple(sorted(lists, key=lambda each: -each.value))
