"""Fusion of ranked lists."""

import pytest

from core.fusion import fuse_rrf, fuse_weighted, normalised_weights
from core.types import Hit


def hits(*scored: tuple[str, float]) -> list[Hit]:
    return [Hit(f"image-{name}", 1, name, score) for name, score in scored]


def test_rrf_adds_weighted_reciprocal_ranks() -> None:
    fused = fuse_rrf({"a": hits(("x", 0.9), ("y", 0.8)), "b": hits(("y", 0.5))}, {"a": 0.75, "b": 0.25})
    assert [hit.product_id for hit in fused] == ["y", "x"]
    assert fused[0].score == pytest.approx(0.75 / 62 + 0.25 / 61)
    assert fused[1].score == pytest.approx(0.75 / 61)


def test_weighted_scales_each_list_before_adding() -> None:
    lists = {"a": hits(("x", 0.30), ("y", 0.25), ("z", 0.20)), "b": hits(("z", 0.95), ("x", 0.85))}
    fused = {hit.product_id: hit.score for hit in fuse_weighted(lists, {"a": 0.5, "b": 0.5})}
    assert fused == pytest.approx({"x": 0.5, "y": 0.25, "z": 0.5})


def test_a_list_of_equal_scores_counts_in_full() -> None:
    fused = fuse_weighted({"a": hits(("x", 0.4), ("y", 0.4))}, {"a": 1.0})
    assert [hit.score for hit in fused] == [1.0, 1.0]


def test_ties_are_ordered_by_product() -> None:
    fused = fuse_rrf({"a": hits(("q", 1.0)), "b": hits(("p", 1.0))}, {"a": 0.5, "b": 0.5})
    assert [hit.product_id for hit in fused] == ["p", "q"]


def test_the_picture_comes_from_the_list_that_contributes_most() -> None:
    lists = {"a": [Hit("front", 1, "x", 0.9)], "b": [Hit("back", 1, "x", 0.9)]}
    assert fuse_rrf(lists, {"a": 0.2, "b": 0.8})[0].image_id == "back"


def test_weights_of_the_members_that_answered_sum_to_one() -> None:
    assert normalised_weights({"a": 1.0, "b": 3.0, "c": 9.0}, ["a", "b"]) == {"a": 0.25, "b": 0.75}


@pytest.mark.parametrize("weight", [1e308, 5e-324])
def test_the_largest_and_the_smallest_weights_have_shares_too(weight: float) -> None:
    assert normalised_weights({"a": weight, "b": weight}, ["a", "b"]) == {"a": 0.5, "b": 0.5}
