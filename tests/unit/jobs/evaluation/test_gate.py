"""Bootstrap intervals, and the quality gate."""

import numpy as np
import pytest
from pydantic import ValidationError

from core.config import EvaluationConfig, QualityGateConfig
from jobs.evaluation.result import Bootstrap, decide, estimate, paired_difference

INTERVALS = Bootstrap(resamples=1000, confidence=0.95, seed=3)


def test_an_interval_holds_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for draw in range(200):
        found = estimate(rng.beta(2, 1, size=80).tolist(), Bootstrap(400, 0.9, draw))
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 2 / 3 <= found.high
    assert 0.83 <= held / 200 <= 0.96


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    values = np.random.default_rng(2).random(50).tolist()
    assert estimate(values, INTERVALS) == estimate(values, INTERVALS)
    assert estimate(values, INTERVALS) != estimate(values, Bootstrap(1000, 0.95, 4))


def test_one_value_has_no_interval() -> None:
    found = estimate([0.5], INTERVALS)
    assert (found.mean, found.low, found.high, found.queries) == (0.5, None, None, 1)


def test_pairing_removes_what_makes_queries_hard_for_both() -> None:
    rng = np.random.default_rng(3)
    hardness = {f"q{number}": value for number, value in enumerate(rng.random(100))}
    better = {query: value + 0.02 + 0.001 * rng.standard_normal() for query, value in hardness.items()}
    found = paired_difference(better, hardness, INTERVALS)
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert 0.015 < found.low < found.mean < found.high < 0.025


def test_only_queries_that_both_have_answered_are_compared() -> None:
    found = paired_difference({"a": 1.0, "b": 0.5, "c": 0.0}, {"b": 0.25, "c": 0.25, "d": 1.0}, INTERVALS)
    assert found is not None
    assert (found.mean, found.queries) == (0.0, 2)
    assert paired_difference({"a": 1.0}, {"b": 1.0}, INTERVALS) is None


HOW = Bootstrap(resamples=500, confidence=0.95, seed=0)
LIVE = {f"q{n}": float(value) for n, value in enumerate(np.random.default_rng(0).uniform(0.3, 0.9, 100))}


def test_an_equal_candidate_passes() -> None:
    decision = decide(LIVE, dict(LIVE), QualityGateConfig(max_drop=0.0), HOW)
    assert decision.passed
    assert decision.difference is not None
    assert decision.difference.mean == 0.0


def test_a_worse_candidate_is_refused_with_the_figures() -> None:
    worse = {query: value - 0.05 for query, value in LIVE.items()}
    decision = decide(LIVE, worse, QualityGateConfig(metric="map", max_drop=0.01), HOW)
    mean = np.mean(list(LIVE.values()))
    assert not decision.passed
    assert decision.reason == (
        f"refused: map goes from {mean:.4f} to {mean - 0.05:.4f} over 100 queries, a difference of -0.0500 "
        "with a 95% interval of -0.0500 to -0.0500; the difference may be no lower than -0.0100"
    )


def test_a_drop_of_exactly_what_is_allowed_passes() -> None:
    slightly = {query: value - 0.01 for query, value in LIVE.items()}
    assert decide(LIVE, slightly, QualityGateConfig(max_drop=0.01), HOW).passed


def test_the_lower_bound_refuses_what_may_be_worse_though_the_mean_is_not() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 0.2, 100)
    noisy = {
        query: value + shift for (query, value), shift in zip(LIVE.items(), noise - noise.mean(), strict=True)
    }
    assert decide(LIVE, noisy, QualityGateConfig(max_drop=0.01), HOW).passed
    strict = decide(LIVE, noisy, QualityGateConfig(max_drop=0.01, judge="lower_bound"), HOW)
    assert not strict.passed
    assert "the lower end of the interval may be no lower than -0.0100" in strict.reason


def test_too_few_queries_say_nothing() -> None:
    few = dict(list(LIVE.items())[:10])
    decision = decide(LIVE, few, QualityGateConfig(min_queries=50), HOW)
    assert not decision.passed
    assert decision.reason == "refused: 10 queries were answered by both versions; the quality gate needs 50"
    assert not decide(LIVE, {}, QualityGateConfig(), HOW).passed


@pytest.mark.parametrize("metric", ["accuracy", "ndcg", "ndcg@0", "map@5", "NDCG@10"])
def test_unknown_metrics_are_refused(metric: str) -> None:
    with pytest.raises(ValidationError, match="metric"):
        QualityGateConfig(metric=metric)


def test_what_the_gate_judges_is_always_measured() -> None:
    assert "ndcg@7" in EvaluationConfig(quality_gate=QualityGateConfig(metric="ndcg@7")).metrics


def test_cutoffs_beyond_the_depth_are_refused() -> None:
    with pytest.raises(ValidationError, match="depth, which is 5"):
        EvaluationConfig(depth=5, cutoffs=(1,))
