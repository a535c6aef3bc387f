"""Result of a comparison: the systems that were compared, their figures, and the decision of the quality gate.

Lists are measured as by trec_eval, and means have bootstrap intervals.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

import ir_measures
import numpy as np
from ir_measures import AP, RR, P, R, nDCG
from ir_measures.measures import Measure
from scipy.stats import bootstrap

from core.config import EvaluationConfig, QualityGateConfig
from core.errors import InvalidInput
from core.fusion import Fusion
from core.jobs import CANDIDATE_SUFFIX, EnsembleArgs, EvaluateArgs, version_facts
from core.rerank import Rerank
from core.types import EncoderInfo, Hit
from jobs.evaluation.queries import JudgedQuery
from jobs.runner.settings import EncoderSettings, Settings

RERANK_SUFFIX = "+rerank"
"""Ends the name of a system with a second stage."""

Grades = Mapping[str, int]
"""Relevance of products to a query, by product id; 0 or missing is not relevant."""

_AT = {"precision": P, "recall": R}
_WITHOUT_CUTOFF = {"map": AP, "mrr": RR}
_NUMBERS_AT_ONCE = 4_000_000
"""Values that are resampled at once: 32 MB."""


def measure(
    lists: Mapping[str, Sequence[str]],
    grades: Mapping[str, Grades],
    metrics: Sequence[str],
    relevant_from: int = 1,
) -> dict[str, dict[str, float]]:
    """Measure each query's list of distinct product ids, best first; values in [0, 1] by metric and query.

    Precision and recall count grades of at least `relevant_from`; precision divides by k even where fewer products
    are relevant. map and mrr are average precision and reciprocal rank of the same grades, over the complete list.
    ndcg takes the grades as gains, discounted by log2(1 + rank) (Järvelin and Kekäläinen, 2002). Each query needs
    a product with a grade of at least `relevant_from`.
    """
    named = {_measure(name, relevant_from): name for name in metrics}
    # Ranks as scores: none are equal, so the lists keep their order.
    run = {
        query: {product: float(len(found) - rank) for rank, product in enumerate(found)}
        for query, found in lists.items()
    }
    judged = {query: dict(grades[query]) for query in lists}
    values: dict[str, dict[str, float]] = {name: {} for name in metrics}
    if not lists:
        return values
    for each in ir_measures.iter_calc(list(named), judged, run):
        values[named[each.measure]][each.query_id] = each.value
    return values


def _measure(name: str, relevant_from: int) -> Measure:
    base, _, cutoff = name.partition("@")
    measure: Measure
    if base == "ndcg":
        measure = nDCG @ int(cutoff)
    elif cutoff:
        measure = _AT[base](rel=relevant_from) @ int(cutoff)
    else:
        measure = _WITHOUT_CUTOFF[base](rel=relevant_from)
    return measure


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Settings of intervals; the same seed gives the same interval."""

    resamples: int
    confidence: float
    seed: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """Mean of `queries` values with its confidence interval; a single value has none."""

    mean: float
    low: float | None
    high: float | None
    queries: int


def estimate(values: Sequence[float], how: Bootstrap) -> Estimate:
    """Estimate the mean of at least one value, with its percentile interval (Efron, Tibshirani, 1993, chapter 13)."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Estimate(mean, None, None, len(values))
    found = bootstrap(
        (np.asarray(values, np.float64),),
        np.mean,
        n_resamples=how.resamples,
        batch=max(1, _NUMBERS_AT_ONCE // len(values)),
        confidence_level=how.confidence,
        method="percentile",
        rng=np.random.default_rng(how.seed),
    ).confidence_interval
    return Estimate(mean, float(found.low), float(found.high), len(values))


def paired_difference(
    first: Mapping[str, float], second: Mapping[str, float], how: Bootstrap
) -> Estimate | None:
    """Estimate `first` minus `second` over the queries that both have; None when there are none.

    Pairing removes what makes a query easy or hard for both, so the interval is narrower than those of the means.
    """
    both = [query for query in first if query in second]
    return estimate([first[query] - second[query] for query in both], how) if both else None


@dataclass(frozen=True, slots=True)
class QualityGateDecision:
    """Decision on a candidate; `reason` holds the figures, `difference` is candidate minus baseline.

    `passed` is None where nothing was compared.
    """

    passed: bool | None
    reason: str
    metric: str | None = None
    difference: Estimate | None = None


def decide(
    baseline: Mapping[str, float], candidate: Mapping[str, float], gate: QualityGateConfig, how: Bootstrap
) -> QualityGateDecision:
    """Judge the values of `gate.metric` by query, over the queries that both have answered."""
    difference = paired_difference(candidate, baseline, how)
    if difference is None or difference.queries < gate.min_queries:
        count = 0 if difference is None else difference.queries
        reason = f"refused: {count} queries were answered by both versions; the quality gate needs {gate.min_queries}"
        return QualityGateDecision(False, reason, gate.metric, difference)
    lowest = difference.low if gate.judge == "lower_bound" else difference.mean
    # Means of equal values can differ in the last digits.
    passed = lowest is not None and lowest >= -gate.max_drop - 1e-12
    reason = f"{'passed' if passed else 'refused'}: {_reason(baseline, candidate, gate, difference, how)}"
    return QualityGateDecision(passed, reason, gate.metric, difference)


def _reason(
    baseline: Mapping[str, float],
    candidate: Mapping[str, float],
    gate: QualityGateConfig,
    difference: Estimate,
    how: Bootstrap,
) -> str:
    both = [query for query in candidate if query in baseline]
    before, after = (sum(values[query] for query in both) / len(both) for values in (baseline, candidate))
    judged = "the lower end of the interval" if gate.judge == "lower_bound" else "the difference"
    return (
        f"{gate.metric} goes from {before:.4f} to {after:.4f} over {len(both)} queries, a difference of "
        f"{difference.mean:+.4f} with a {how.confidence:.0%} interval of {difference.low:+.4f} to "
        f"{difference.high:+.4f}; {judged} may be no lower than {-gate.max_drop:.4f}"
    )


Values = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Values by system, metric and query id; queries that a system could not answer are missing."""


@dataclass(frozen=True, slots=True)
class System:
    """A version by its label, or an ensemble of several with weights; `fusion` is None for one alone.

    With `rerank` it is another system, by the name `of`, with a second stage.
    """

    name: str
    weights: Mapping[str, float]
    fusion: Fusion | None
    rerank: Rerank | None = None
    of: str | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Versions by label and the systems made of them; the quality gate compares `candidate` with `baseline`.

    Both are labels, and None where the arguments name no candidate. `matcher` is the model of the second stage.
    """

    versions: Mapping[str, EncoderSettings]
    systems: tuple[System, ...]
    baseline: str | None
    candidate: str | None
    matcher: EncoderSettings | None = None


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
    matcher = None
    if args.rerank is not None:
        matcher = settings.encoder(args.rerank.model, {})
        rerank = Rerank(args.rerank.model, args.rerank.depth)
        systems += [
            replace(system, name=f"{system.name}{RERANK_SUFFIX}", rerank=rerank, of=system.name)
            for system in systems
        ]
    names = [system.name for system in systems]
    if len(set(names)) < len(names):
        raise InvalidInput(f"two systems have the same name: {', '.join(names)}").at("ensembles")
    return Comparison(versions, tuple(systems), baseline, label, matcher)


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
        name: {
            metric: {query: value for query, value in by_metric[metric].items() if query in chosen}
            for metric in metrics
        }
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
