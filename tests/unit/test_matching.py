"""A product matches when models with more than half of the weight say so."""

from collections.abc import Mapping

import pytest

from core.errors import ModelUnavailable
from core.matching import matching
from core.types import Hit

COLLECTIONS = ("a_1", "b_1", "c_1")


def shown(
    lists: Mapping[str, Mapping[str, float]], weights: Mapping[str, float], minimums: Mapping[str, float]
) -> list[str]:
    hits = {name: [_hit(each, score) for each, score in found.items()] for name, found in lists.items()}
    found = {name: (f"{name}_1", listed) for name, listed in hits.items()}
    fused = [_hit(each, 0.01) for each in dict.fromkeys(each for found in lists.values() for each in found)]
    return [hit.product_id for hit in matching(fused, found, weights, minimums)]


def _hit(product_id: str, score: float) -> Hit:
    return Hit(f"{product_id}-i", 1, product_id, score)


def test_one_model_decides_alone_and_a_score_at_the_threshold_matches() -> None:
    assert shown({"a": {"p": 0.9, "q": 0.8, "r": 0.79}}, {"a": 1.0}, {"a_1": 0.8}) == ["p", "q"]


def test_two_equal_models_have_to_agree_and_the_order_stays() -> None:
    lists = {"a": {"r": 0.9, "p": 0.9, "q": 0.9}, "b": {"p": 0.5, "r": 0.5}}
    minimums = {"a_1": 0.8, "b_1": 0.4}
    assert shown(lists, {"a": 0.5, "b": 0.5}, minimums) == ["r", "p"]
    assert shown(lists, {"a": 0.6, "b": 0.4}, minimums) == ["r", "p", "q"]


def test_a_majority_of_three_is_enough() -> None:
    lists = {"a": {"p": 0.9}, "b": {"p": 0.9, "q": 0.9}, "c": {"q": 0.1}}
    weights = dict.fromkeys("abc", 1 / 3)
    assert shown(lists, weights, dict.fromkeys(COLLECTIONS, 0.8)) == ["p"]


def test_a_model_without_a_threshold_matches_nothing() -> None:
    lists = {"a": {"p": 0.9}, "b": {"p": 0.9}}
    weights = {"a": 0.5, "b": 0.5}
    assert shown(lists, weights, {"a_1": 0.8}) == []
    with pytest.raises(ModelUnavailable):
        shown(lists, weights, {"a_2": 0.8})
