"""Whether a candidate may take over, with the figures in words."""

from collections.abc import Mapping
from dataclasses import dataclass

from core.evaluation import GateConfig
from jobs.evaluation.bootstrap import Bootstrap, Estimate, paired_difference


@dataclass(frozen=True, slots=True)
class GateDecision:
    """Whether the candidate passes; `reason` holds the figures, `difference` is candidate minus live."""

    passed: bool
    reason: str
    metric: str
    difference: Estimate | None


def decide(
    live: Mapping[str, float], candidate: Mapping[str, float], gate: GateConfig, how: Bootstrap
) -> GateDecision:
    """Judge the values of `gate.metric` by query, over the queries that both have answered."""
    difference = paired_difference(candidate, live, how)
    if difference is None or difference.queries < gate.min_queries:
        count = 0 if difference is None else difference.queries
        reason = f"refused: {count} queries were answered by both versions; the gate needs {gate.min_queries}"
        return GateDecision(False, reason, gate.metric, difference)
    lowest = difference.low if gate.judge == "lower_bound" else difference.mean
    # Means of equal values may differ in the last digits.
    passed = lowest is not None and lowest >= -gate.max_drop - 1e-12
    reason = f"{'passed' if passed else 'refused'}: {_figures(live, candidate, gate, difference, how)}"
    return GateDecision(passed, reason, gate.metric, difference)


def _figures(
    live: Mapping[str, float],
    candidate: Mapping[str, float],
    gate: GateConfig,
    difference: Estimate,
    how: Bootstrap,
) -> str:
    both = [query for query in candidate if query in live]
    before, after = (sum(values[query] for query in both) / len(both) for values in (live, candidate))
    judged = "the lower end of the interval" if gate.judge == "lower_bound" else "the difference"
    return (
        f"{gate.metric} goes from {before:.4f} to {after:.4f} over {len(both)} queries, a difference of "
        f"{difference.mean:+.4f} with a {how.confidence:.0%} interval of {difference.low:+.4f} to "
        f"{difference.high:+.4f}; {judged} may be no lower than {-gate.max_drop:.4f}"
    )
