import numpy as np
import pytest

from jobs.evaluation.bootstrap import Bootstrap, estimate, paired_difference

HOW = Bootstrap(resamples=1000, confidence=0.95, seed=3)


def test_an_interval_holds_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for draw in range(200):
        found = estimate(rng.beta(2, 1, size=80).tolist(), Bootstrap(400, 0.9, draw))
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 2 / 3 <= found.high
    assert 0.83 <= held / 200 <= 0.96


def test_the_interval_is_about_two_standard_errors_to_each_side() -> None:
    values = np.random.default_rng(1).normal(0.5, 0.1, size=400)
    found = estimate(values.tolist(), HOW)
    assert found.mean == pytest.approx(values.mean(), abs=1e-12)
    error = values.std() / 20
    assert found.high == pytest.approx(found.mean + 1.96 * error, abs=0.3 * error)
    assert found.low == pytest.approx(found.mean - 1.96 * error, abs=0.3 * error)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    values = np.random.default_rng(2).random(50).tolist()
    assert estimate(values, HOW) == estimate(values, HOW)
    assert estimate(values, HOW) != estimate(values, Bootstrap(1000, 0.95, 4))


def test_one_value_has_no_interval() -> None:
    found = estimate([0.5], HOW)
    assert (found.mean, found.low, found.high, found.queries) == (0.5, None, None, 1)


def test_pairing_removes_what_makes_queries_hard_for_both() -> None:
    rng = np.random.default_rng(3)
    hardness = {f"q{number}": value for number, value in enumerate(rng.random(100))}
    better = {query: value + 0.02 + 0.001 * rng.standard_normal() for query, value in hardness.items()}
    found = paired_difference(better, hardness, HOW)
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert 0.015 < found.low < found.mean < found.high < 0.025


def test_only_queries_that_both_have_answered_are_compared() -> None:
    found = paired_difference({"a": 1.0, "b": 0.5, "c": 0.0}, {"b": 0.25, "c": 0.25, "d": 1.0}, HOW)
    assert found is not None
    assert (found.mean, found.queries) == (0.0, 2)
    assert paired_difference({"a": 1.0}, {"b": 1.0}, HOW) is None
