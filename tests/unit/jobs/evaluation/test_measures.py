"""The metrics against an oracle in plain Python, written from their definitions."""

import math
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.evaluation.result import measure

METRICS = ("precision@1", "precision@10", "recall@3", "ndcg@1", "ndcg@5", "ndcg@10", "map", "mrr")
PRODUCTS = [f"p{number}" for number in range(25)]


def oracle(metric: str, found: Sequence[str], grades: Mapping[str, int], relevant_from: int) -> float:
    name, _, cutoff = metric.partition("@")
    relevant = {product for product, grade in grades.items() if grade >= relevant_from}
    first = found[: int(cutoff)] if cutoff else found
    hits = [product in relevant for product in first]
    if name == "precision":
        return sum(hits) / int(cutoff)
    if name == "recall":
        return sum(hits) / len(relevant)
    if name == "mrr":
        return next((1 / rank for rank, hit in enumerate(hits, 1) if hit), 0.0)
    if name == "map":
        precisions = [sum(hits[:rank]) / rank for rank in range(1, len(hits) + 1) if hits[rank - 1]]
        return sum(precisions) / len(relevant)
    ideal = sorted((grade for grade in grades.values() if grade > 0), reverse=True)[: int(cutoff)]
    return gain([grades.get(product, 0) for product in first]) / gain(ideal)


def gain(grades: Sequence[int]) -> float:
    return sum(grade / math.log2(1 + rank) for rank, grade in enumerate(grades, 1))


@st.composite
def judged_runs(draw: st.DrawFn) -> tuple[dict[str, list[str]], dict[str, dict[str, int]]]:
    lists, grades = {}, {}
    for query in range(draw(st.integers(1, 6))):
        # Few distinct scores, so that many are tied; ties go by product id, as everywhere in a search.
        scores = draw(st.dictionaries(st.sampled_from(PRODUCTS), st.integers(0, 4), max_size=25))
        lists[f"q{query}"] = sorted(scores, key=lambda product: (-scores[product], product))
        judged = draw(st.dictionaries(st.sampled_from(PRODUCTS), st.integers(0, 5), max_size=25))
        grades[f"q{query}"] = judged | {draw(st.sampled_from(PRODUCTS)): draw(st.integers(3, 5))}
    return lists, grades


@settings(max_examples=30)
@given(judged_runs(), st.integers(1, 3))
def test_metrics_equal_an_independent_oracle(
    judged: tuple[dict[str, list[str]], dict[str, dict[str, int]]], relevant_from: int
) -> None:
    lists, grades = judged
    values = measure(lists, grades, METRICS, relevant_from)
    for metric in METRICS:
        expected = {query: oracle(metric, lists[query], grades[query], relevant_from) for query in lists}
        assert values[metric] == pytest.approx(expected, abs=1e-9, rel=0)


def test_an_empty_list_counts_as_nothing_found() -> None:
    values = measure({"q": []}, {"q": {"a": 1}}, METRICS)
    assert {metric: found["q"] for metric, found in values.items()} == dict.fromkeys(METRICS, 0.0)


def test_known_values_of_a_small_example() -> None:
    values = measure({"q": ["b", "x", "a"]}, {"q": {"a": 2, "b": 1, "c": 0}}, METRICS)
    assert values["precision@10"]["q"] == 0.2
    assert values["recall@3"]["q"] == 1.0
    assert values["map"]["q"] == pytest.approx((1 + 2 / 3) / 2)
    assert values["ndcg@5"]["q"] == pytest.approx((1 + 2 / 2) / (2 + 1 / math.log2(3)))
