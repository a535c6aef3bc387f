"""Given products are scored by their best picture, on every engine, however they are indexed."""

import numpy as np
import pytest

from core.errors import InvalidInput
from core.filters import parse_filter
from core.ports import VectorStore
from milvus.config import IndexConfig, MilvusConfig
from milvus.store import MilvusStore
from tests.vector_rows import best_scores, row, unit


def test_scores_equal_brute_force(store: VectorStore, collection: str) -> None:
    rng = np.random.default_rng(11)
    sizes = [200, 150, *(int(size) for size in rng.integers(1, 6, 60))]
    rows = [
        row(f"i{number}-{picture}", rng.normal(size=8).astype(np.float32), f"p{number}", group=number % 3)
        for number, size in enumerate(sizes)
        for picture in range(size)
    ]
    store.upsert(collection, rows)
    for filter in (None, parse_filter({"group": 1})):
        query = rng.normal(size=8).astype(np.float32)
        asked = ["p0", "missing", "p1", "p7", "p7", *(f"p{number}" for number in range(20, 62))]
        truth = {p: score for p, score in best_scores(rows, query, filter).items() if p in asked}
        hits = store.score_products(collection, query, asked, filter)
        assert {hit.product_id: hit.score for hit in hits} == pytest.approx(truth, abs=3e-6)
        assert len(hits) == len(truth)
        assert hits == sorted(hits, key=lambda hit: (-hit.score, hit.product_id))
        pictures = {each.item.image_id: each for each in rows}
        for hit in hits:
            own = best_scores([pictures[hit.image_id]], query)[hit.product_id]
            assert hit.score == pytest.approx(own, abs=3e-6)


def test_scores_are_those_of_a_search(store: VectorStore, collection: str) -> None:
    rng = np.random.default_rng(12)
    store.upsert(
        collection,
        [row(f"i{n}", rng.normal(size=8).astype(np.float32), f"p{n // 2}", shade="red") for n in range(60)],
    )
    found = store.search_products(collection, unit(1, 2), 30)
    assert store.score_products(collection, unit(1, 2), [hit.product_id for hit in found[::-1]]) == found


def test_more_products_than_a_call_takes_are_all_scored(store: VectorStore, collection: str) -> None:
    rows = [row(f"i{n}", unit(1, n / 100), f"p{n}") for n in range(1200)]
    store.upsert(collection, rows)
    hits = store.score_products(collection, unit(1), [f"p{n}" for n in range(1200)])
    assert len(hits) == 1200
    assert hits[0].product_id == "p0"


def test_nothing_asked_is_nothing_scored(store: VectorStore, collection: str) -> None:
    store.upsert(collection, [row("a", unit(1))])
    assert store.score_products(collection, unit(1), []) == []
    assert store.score_products(collection, unit(1), ["missing", "\ud800"]) == []
    with pytest.raises(InvalidInput):
        store.score_products(collection, unit(1)[:7], ["p"])


@pytest.mark.parametrize("engine", ["lite", "server"])
def test_an_approximate_index_scores_every_product(engine: str, request: pytest.FixtureRequest) -> None:
    store = MilvusStore(
        MilvusConfig(uri=request.getfixturevalue(f"{engine}_uri"), index=IndexConfig(index_type="HNSW"))
    )
    rng = np.random.default_rng(13)
    rows = [row(f"i{n}", rng.normal(size=8).astype(np.float32), f"p{n // 3}") for n in range(3000)]
    store.ensure_collection("scores_hnsw", 8)
    store.upsert("scores_hnsw", rows)
    query = rng.normal(size=8).astype(np.float32)
    asked = [f"p{number}" for number in range(0, 1000, 9)]
    truth = {p: score for p, score in best_scores(rows, query).items() if p in asked}
    hits = store.score_products("scores_hnsw", query, asked)
    assert {hit.product_id: hit.score for hit in hits} == pytest.approx(truth, abs=3e-6)
    store.drop_collection("scores_hnsw")
    store.close()
