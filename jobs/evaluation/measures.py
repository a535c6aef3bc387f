"""Measures of ranked lists as by trec_eval, bootstrap intervals, and the quality gate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ir_measures
import numpy as np
from ir_measures import AP, RR, P, R, nDCG
from ir_measures.measures import Measure
from scipy.stats import bootstrap

from core.job_config import QualityGateConfig

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
