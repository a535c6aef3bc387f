"""Result of a comparison: the versions and ensembles that were compared, and their figures."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from core.errors import InvalidInput
from core.fusion import Fusion
from core.job_config import EvaluationConfig
from core.jobs import CANDIDATE_SUFFIX, EnsembleArgs, EvaluateArgs, version_facts
from core.types import EncoderInfo, Hit
from jobs.evaluation.labels import JudgedQuery
from jobs.evaluation.measures import Bootstrap, Estimate, QualityGateDecision, estimate, paired_difference
from jobs.runner.settings import EncoderSettings, Settings

Values = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Values by system, metric and query id; queries that a system could not answer are missing."""


@dataclass(frozen=True, slots=True)
class System:
    """A version by its label, or an ensemble of several with weights; `fusion` is None for one alone."""

    name: str
    weights: Mapping[str, float]
    fusion: Fusion | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Versions by label and the systems made of them; the quality gate compares `candidate` with `baseline`.

    Both are labels, and None where the arguments name no candidate.
    """

    versions: Mapping[str, EncoderSettings]
    systems: tuple[System, ...]
    baseline: str | None
    candidate: str | None


def comparison(
    settings: Settings,
    args: EvaluateArgs,
    default_models: Sequence[str],
    candidate: EncoderSettings | None = None,
) -> Comparison:
    """Choose versions and systems; without models in the arguments, `default_models` are compared.

    `candidate` is one of the arguments' model, in place of the one that their fields describe.

    Raises:
        InvalidInput: a model, a candidate or a member of an ensemble cannot be, or names repeat.
    """
    named = [*([args.model] if args.model else []), *args.compare]
    versions = {model: settings.encoder(model, {}) for model in named or default_models}
    if candidate is None and args.model and args.changes:
        candidate = settings.encoder(args.model, args.changes)
    baseline = label = None
    if candidate is not None:
        baseline = candidate.config.name
        label = f"{baseline}{CANDIDATE_SUFFIX}"
        versions[label] = candidate
    ensembles = [_checked_ensemble(each, versions) for each in args.ensembles] or _configured_ensembles(
        settings, versions, baseline
    )
    systems = [System(each, {each: 1.0}, None) for each in versions]
    systems += [System(each.name, each.weights, each.fusion) for each in ensembles]
    names = [system.name for system in systems]
    if len(set(names)) < len(names):
        raise InvalidInput(f"two systems have the same name: {', '.join(names)}").at("ensembles")
    return Comparison(versions, tuple(systems), baseline, label)


def _configured_ensembles(
    settings: Settings, versions: Mapping[str, EncoderSettings], baseline: str | None
) -> list[EnsembleArgs]:
    """The configured ensemble where all its members are compared, and the same with the candidate."""
    found = settings.ensemble
    if found is None:
        return []
    weights = {name: weight for name, weight in found.weights.items() if weight > 0}
    if not set(weights) <= set(versions) or len(weights) < 2:
        return []
    ensembles = [found.model_copy(update={"weights": weights})]
    if baseline in weights:
        replaced = {
            f"{name}{CANDIDATE_SUFFIX}" if name == baseline else name: each for name, each in weights.items()
        }
        name = f"{found.name}{CANDIDATE_SUFFIX}"
        ensembles.append(found.model_copy(update={"name": name, "weights": replaced}))
    return ensembles


def _checked_ensemble(ensemble: EnsembleArgs, versions: Mapping[str, EncoderSettings]) -> EnsembleArgs:
    unknown = sorted(set(ensemble.weights) - set(versions))
    if unknown:
        raise InvalidInput(
            f"{unknown[0]!r:.80} of ensemble {ensemble.name!r:.80} is not compared; "
            f"there are: {', '.join(versions)}"
        ).at("ensembles")
    if not any(ensemble.weights.values()):
        raise InvalidInput(f"no member of ensemble {ensemble.name!r:.80} has a weight above 0").at(
            "ensembles"
        )
    return ensemble


@dataclass(frozen=True, slots=True)
class Difference:
    """`first` minus `second` by one metric, over the queries that both have answered."""

    first: str
    second: str
    metric: str
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class Figures:
    """Queries of one kind: estimates by system and metric, and differences between systems."""

    kind: str
    queries: int
    estimates: Mapping[str, Mapping[str, Estimate]]
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """Systems that were compared, the queries they were asked, and their figures.

    `hits` holds the first products of each list, as many as a report shows. `pool` is the number of products
    that were searched among; None stands for the whole catalog. `decision` is that of the quality gate, None
    without a candidate. `notes` name what was left out.
    """

    config: EvaluationConfig
    versions: Mapping[str, EncoderInfo]
    systems: tuple[System, ...]
    baseline: str | None
    candidate: str | None
    queries: tuple[JudgedQuery, ...]
    values: Values
    hits: Mapping[str, Mapping[str, tuple[Hit, ...]]]
    figures: tuple[Figures, ...]
    decision: QualityGateDecision | None
    pool: int | None
    notes: tuple[str, ...]

    def summary(self) -> dict[str, Any]:
        """Return all but the queries' own values, as JSON; the version is the candidate's where there is one."""
        facts = {label: version_facts(info) for label, info in self.versions.items()}
        compared: dict[str, Any] = {}
        if self.baseline is not None and self.candidate is not None:
            compared = facts[self.candidate] | {"baseline": self.versions[self.baseline].collection}
        return compared | {
            "queries": len(self.queries),
            "seed": self.config.seed,
            "products_searched": self.pool if self.pool is not None else "all",
            "versions": facts,
            "systems": [asdict(system) for system in self.systems],
            "figures": [asdict(figures) for figures in self.figures],
            "quality_gate": None if self.decision is None else asdict(self.decision),
            "notes": list(self.notes),
        }

    def full(self) -> dict[str, Any]:
        """Return the summary, and each query's values by system and metric."""
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
    """Sum up each kind of query by itself, over those systems that answered queries of that kind."""
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
