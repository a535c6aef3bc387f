"""Fused pages follow each other, whatever the depth of each."""

import asyncio
from typing import cast

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from core.ensemble import EnsembleSearch
from core.fusion import Fusion, fusion_depth
from core.search import ModelSearch, QueryPart, SearchQuery
from milvus.memory import MemoryStore
from tests.support.local_encoder import LocalEncoder
from tests.support.vector_stores import row

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
