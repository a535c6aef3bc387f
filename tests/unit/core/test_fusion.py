"""Fusion of ranked lists and its pages, matching by thresholds, and arithmetic on vectors."""

import asyncio
from collections.abc import Mapping
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.calibration import matching
from core.ensemble import EnsembleSearch
from core.errors import InvalidInput, ModelUnavailable
from core.fusion import Fusion, fuse_rrf, fuse_weighted, fusion_depth, normalized_weights, weighted_mean
from core.search import ModelSearch, QueryPart, SearchQuery
from core.types import Hit
from milvus.memory import MemoryStore
from tests.support.local_encoder import LocalEncoder
from tests.support.vector_stores import row


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


def test_the_image_comes_from_the_list_that_contributes_most() -> None:
    lists = {"a": [Hit("front", 1, "x", 0.9)], "b": [Hit("back", 1, "x", 0.9)]}
    assert fuse_rrf(lists, {"a": 0.2, "b": 0.8})[0].image_id == "back"


def test_weights_of_the_members_that_answered_sum_to_one() -> None:
    assert normalized_weights({"a": 1.0, "b": 3.0, "c": 9.0}, ["a", "b"]) == {"a": 0.25, "b": 0.75}


@pytest.mark.parametrize("weight", [1e308, 5e-324])
def test_the_largest_and_the_smallest_weights_have_shares_too(weight: float) -> None:
    assert normalized_weights({"a": weight, "b": weight}, ["a", "b"]) == {"a": 0.5, "b": 0.5}


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


EAST, NORTH = np.array([1, 0], np.float32), np.array([0, 1], np.float32)


@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e-320, 1e39, 4e307])
def test_only_the_proportions_of_weights_mean_something(scale: float) -> None:
    mean = weighted_mean([EAST, NORTH], [3 * scale, -4 * scale])
    assert mean.dtype == np.float32
    assert mean == pytest.approx([0.6, -0.8], abs=1e-3)


@pytest.mark.parametrize("weights", [[1.0, -1.0], [1e-12, -1e-12], [0.0, 0.0]])
def test_weights_that_cancel_out_are_refused(weights: list[float]) -> None:
    with pytest.raises(InvalidInput, match="cancel out"):
        weighted_mean([EAST, EAST], weights)


PRODUCTS = 400


def test_an_ensemble_shows_every_product_once_in_one_order_whatever_the_page() -> None:
    searches = members(seed=4)
    for fusion in ("rrf", "weighted"):
        whole = found(searches, PRODUCTS, cast(Fusion, fusion))
        assert len(set(whole)) == PRODUCTS
        for limit in (1, 10, 32, 33, 100, 128, 129, 300):
            assert found(searches, limit, cast(Fusion, fusion)) == whole[:limit], (fusion, limit)


def members(seed: int) -> dict[str, ModelSearch]:
    """Three models that disagree about everything."""
    rng, searches = np.random.default_rng(seed), {}
    for name in ("a", "b", "c"):
        store, encoder = MemoryStore(), LocalEncoder(name)
        info = asyncio.run(encoder.describe())
        vectors = rng.random((PRODUCTS, info.dimension)).astype(np.float32)
        store.ensure_collection(info.collection, info.dimension)
        store.upsert(info.collection, [row(f"i{n}", vectors[n], f"p{n:03}") for n in range(PRODUCTS)])
        searches[name] = ModelSearch(encoder, store)
    return searches


def found(searches: dict[str, ModelSearch], limit: int, fusion: Fusion) -> list[str]:
    query = SearchQuery((QueryPart("a red thing"),), limit, fusion=fusion)
    result = asyncio.run(EnsembleSearch(searches, deadline_s=30).search(query))
    return [hit.product_id for hit in result.hits]


@given(st.integers(1, 5000))
def test_lists_are_at_least_twice_as_deep_as_the_page(limit: int) -> None:
    assert fusion_depth(limit) >= max(64, 2 * limit)
