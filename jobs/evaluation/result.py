"""Result of a comparison: the versions and ensembles that were compared, and their figures."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from core.errors import InvalidInput
from core.fusion import Fusion
from core.job_config import EvaluationConfig
from core.jobs import CANDIDATE, EnsembleArgs, EvaluateArgs
from core.types import EncoderInfo, Hit
from jobs.evaluation.labels import JudgedQuery
from jobs.evaluation.measures import Bootstrap, Estimate, GateDecision, estimate, paired_difference
from jobs.runner.settings import EncoderSettings, Settings


@dataclass(frozen=True, slots=True)
class Contender:
    """A version by its label, or several with weights; `fusion` is None for one alone."""

    name: str
    weights: Mapping[str, float]
    fusion: Fusion | None


@dataclass(frozen=True, slots=True)
class LineUp:
    """The versions by label, and who is made of them; `live` and `candidate` are what the gate judges."""

    versions: Mapping[str, EncoderSettings]
    contenders: tuple[Contender, ...]
    live: str | None
    candidate: str | None


def line_up(settings: Settings, args: EvaluateArgs, default_models: Sequence[str]) -> LineUp:
    """Choose versions and contenders; without models in the arguments, `default_models` are compared.

    Raises:
        InvalidInput: a model, a candidate or a member of an ensemble cannot be, or names repeat.
    """
    live = args.candidate.model if args.candidate else None
    models = list(dict.fromkeys([*(args.models or default_models), *([live] if live else [])]))
    versions = {model: settings.encoder(model, {}) for model in models}
    candidate = None
    if args.candidate:
        candidate = f"{live}{CANDIDATE}"
        versions[candidate] = settings.encoder(args.candidate.model, args.candidate.candidate)
    ensembles = [_checked_ensemble(each, versions) for each in args.ensembles] or _configured_ensembles(
        settings, versions, live
    )
    contenders = [Contender(label, {label: 1.0}, None) for label in versions]
    contenders += [Contender(each.name, each.weights, each.fusion) for each in ensembles]
    names = [contender.name for contender in contenders]
    if len(set(names)) < len(names):
        raise InvalidInput(f"two are called alike: {', '.join(names)}").at("ensembles")
    return LineUp(versions, tuple(contenders), live, candidate)


def _configured_ensembles(
    settings: Settings, versions: Mapping[str, EncoderSettings], live: str | None
) -> list[EnsembleArgs]:
    """The configured ensemble where all its members are compared, and the same with the candidate."""
    found = settings.ensemble
    if found is None:
        return []
    weights = {name: weight for name, weight in found.weights.items() if weight > 0}
    if not set(weights) <= set(versions) or len(weights) < 2:
        return []
    ensembles = [found.model_copy(update={"weights": weights})]
    if live in weights:
        renewed = {f"{name}{CANDIDATE}" if name == live else name: each for name, each in weights.items()}
        ensembles.append(found.model_copy(update={"name": f"{found.name}{CANDIDATE}", "weights": renewed}))
    return ensembles


def _checked_ensemble(ensemble: EnsembleArgs, versions: Mapping[str, EncoderSettings]) -> EnsembleArgs:
    strangers = sorted(set(ensemble.weights) - set(versions))
    if strangers:
        raise InvalidInput(
            f"{strangers[0]!r:.80} of ensemble {ensemble.name!r:.80} is not compared; "
            f"there are: {', '.join(versions)}"
        ).at("ensembles")
    if not any(ensemble.weights.values()):
        raise InvalidInput(f"no member of ensemble {ensemble.name!r:.80} has a weight above 0").at(
            "ensembles"
        )
    return ensemble


Values = Mapping[str, Mapping[str, Mapping[str, float]]]
"""By contender, metric and query id; queries that a contender could not answer are missing."""


@dataclass(frozen=True, slots=True)
class Difference:
    """`first` minus `second` by one metric, over the queries that both have answered."""

    first: str
    second: str
    metric: str
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class Figures:
    """Queries of one kind: estimates by contender and metric, and differences between contenders."""

    kind: str
    queries: int
    estimates: Mapping[str, Mapping[str, Estimate]]
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """A comparison: who was compared, on which queries, among how many products, and how they did.

    `hits` are the first products of each list, as far as a report shows them. `pool` is the number of
    products that were searched among, None: the whole catalog. `decision` is the gate's, where there was a
    candidate. `notes` tell what was left out.
    """

    config: EvaluationConfig
    versions: Mapping[str, EncoderInfo]
    contenders: tuple[Contender, ...]
    queries: tuple[JudgedQuery, ...]
    values: Values
    hits: Mapping[str, Mapping[str, tuple[Hit, ...]]]
    figures: tuple[Figures, ...]
    decision: GateDecision | None
    pool: int | None
    notes: tuple[str, ...]

    def summary(self) -> dict[str, Any]:
        """Everything but the queries' own values, as JSON knows it."""
        return {
            "queries": len(self.queries),
            "seed": self.config.seed,
            "products_searched": self.pool if self.pool is not None else "all",
            "versions": {
                label: {
                    "collection": info.collection,
                    "dimension": info.dimension,
                    "checkpoint": info.checkpoint,
                }
                for label, info in self.versions.items()
            },
            "contenders": [asdict(contender) for contender in self.contenders],
            "figures": [asdict(figures) for figures in self.figures],
            "gate": None if self.decision is None else asdict(self.decision),
            "notes": list(self.notes),
        }

    def full(self) -> dict[str, Any]:
        """The summary, and each query's values by contender and metric."""
        return self.summary() | {
            "config": self.config.model_dump(mode="json"),
            "values": {
                name: {metric: dict(values) for metric, values in by_metric.items()}
                for name, by_metric in self.values.items()
            },
        }


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
