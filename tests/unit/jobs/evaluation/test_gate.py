import numpy as np
import pytest
from pydantic import ValidationError

from core.evaluation import EvaluationConfig, GateConfig
from jobs.evaluation.bootstrap import Bootstrap
from jobs.evaluation.gate import decide

HOW = Bootstrap(resamples=500, confidence=0.95, seed=0)
LIVE = {f"q{n}": float(value) for n, value in enumerate(np.random.default_rng(0).uniform(0.3, 0.9, 100))}


def test_an_equal_candidate_passes() -> None:
    decision = decide(LIVE, dict(LIVE), GateConfig(max_drop=0.0), HOW)
    assert decision.passed
    assert decision.difference is not None
    assert decision.difference.mean == 0.0


def test_a_worse_candidate_is_refused_with_the_figures() -> None:
    worse = {query: value - 0.05 for query, value in LIVE.items()}
    decision = decide(LIVE, worse, GateConfig(metric="map", max_drop=0.01), HOW)
    mean = np.mean(list(LIVE.values()))
    assert not decision.passed
    assert decision.reason == (
        f"refused: map goes from {mean:.4f} to {mean - 0.05:.4f} over 100 queries, a difference of -0.0500 "
        "with a 95% interval of -0.0500 to -0.0500; the difference may be no lower than -0.0100"
    )


def test_a_drop_of_exactly_what_is_allowed_passes() -> None:
    slightly = {query: value - 0.01 for query, value in LIVE.items()}
    assert decide(LIVE, slightly, GateConfig(max_drop=0.01), HOW).passed


def test_the_lower_bound_refuses_what_may_be_worse_though_the_mean_is_not() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 0.2, 100)
    noisy = {
        query: value + shift for (query, value), shift in zip(LIVE.items(), noise - noise.mean(), strict=True)
    }
    assert decide(LIVE, noisy, GateConfig(max_drop=0.01), HOW).passed
    strict = decide(LIVE, noisy, GateConfig(max_drop=0.01, judge="lower_bound"), HOW)
    assert not strict.passed
    assert "the lower end of the interval may be no lower than -0.0100" in strict.reason


def test_too_few_queries_say_nothing() -> None:
    few = dict(list(LIVE.items())[:10])
    decision = decide(LIVE, few, GateConfig(min_queries=50), HOW)
    assert not decision.passed
    assert decision.reason == "refused: 10 queries were answered by both versions; the gate needs 50"
    assert not decide(LIVE, {}, GateConfig(), HOW).passed


@pytest.mark.parametrize("metric", ["accuracy", "ndcg", "ndcg@0", "map@5", "NDCG@10"])
def test_unknown_metrics_are_refused(metric: str) -> None:
    with pytest.raises(ValidationError, match="metric"):
        GateConfig(metric=metric)


def test_what_the_gate_judges_is_always_measured() -> None:
    assert "ndcg@7" in EvaluationConfig(gate=GateConfig(metric="ndcg@7")).metrics


def test_cutoffs_beyond_the_depth_are_refused() -> None:
    with pytest.raises(ValidationError, match="depth, which is 5"):
        EvaluationConfig(depth=5, cutoffs=(1,))
