"""A filter lets the same products through on every engine as its meaning in Python does."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from core.filters import MAX_CONDITIONS, MAX_DEPTH, matches, parse_filter
from core.ports import VectorStore
from core.types import IndexItem, VectorRow
from milvus.config import IndexConfig, MilvusConfig
from milvus.store import MilvusStore
from tests.support.filter_cases import DECLARED, Case, cases
from tests.support.vector_stores import best_scores, row, unit


def check_agreement(store: VectorStore, collection: str, drawn: st.SearchStrategy[Case], count: int) -> None:
    """Check that filters let the same products through in the store as in Python."""
    telling: list[bool] = []

    # Each example writes rows: making a failing one smaller would take minutes.
    @settings(
        max_examples=count, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(drawn)
    def agree(case: Case) -> None:
        products, filters = case
        rows = [
            VectorRow(IndexItem(f"i{n}", 1, f"p{n}", "0" * 64, attributes), unit(1, n))
            for n, attributes in enumerate(products)
        ]
        store.delete(collection, list(store.keys(collection)))
        store.upsert(collection, rows)
        for json in filters:
            filter = parse_filter(json)
            expected = {each.item.product_id for each in rows if matches(filter, each.item.attributes)}
            hits = store.search_products(collection, unit(1), len(rows), filter)
            assert {hit.product_id for hit in hits} == expected, json
            telling.append(0 < len(expected) < len(rows))

    agree()
    assert sum(telling) > len(telling) / 20, "too few filters tell rows apart"


def test_any_filter_means_the_same_everywhere(store: VectorStore, collection: str) -> None:
    check_agreement(store, collection, cases(), 40)


def test_any_filter_means_the_same_on_declared_attributes(
    declaring_store: VectorStore, declared: str
) -> None:
    check_agreement(declaring_store, declared, cases(DECLARED), 60)


def test_a_filter_of_many_conditions_is_evaluated(store: VectorStore, collection: str) -> None:
    store.upsert(
        collection, [row(f"i{n}", unit(1, n), f"p{n}", n=n, **{f"huge{n}": 10**400}) for n in range(4)]
    )
    missing: list[dict[str, object]] = [{f"missing{n}": {"gte": n}} for n in range(MAX_CONDITIONS - 1)]
    any_of = parse_filter({"or": [{"n": 2}, *missing]})
    all_of = parse_filter({"and": [{"n": {"gte": 2}}, *({"not": each} for each in missing)]})
    nested: Any = {"n": 1}
    for depth in range(MAX_DEPTH // 2 - 1):
        some = missing[15 * depth :][:15]
        nested = {"or": [{"and": [nested, {"n": {"exists": True}}]}, *some]}
    nested, huge = parse_filter(nested), parse_filter({"huge3": {"exists": True}})
    for filter, expected in ((any_of, {"p2"}), (all_of, {"p2", "p3"}), (nested, {"p1"}), (huge, {"p3"})):
        found = store.search_products(collection, unit(1), 4, filter)
        assert {hit.product_id for hit in found} == expected


@pytest.mark.parametrize("engine", ["lite", "server"])
def test_recall_under_a_selective_filter_is_near_exact(engine: str, request: pytest.FixtureRequest) -> None:
    uri = request.getfixturevalue(f"{engine}_uri")
    index = IndexConfig(index_type="HNSW") if engine == "server" else IndexConfig()
    store = MilvusStore(MilvusConfig(uri=uri, index=index))
    rng = np.random.default_rng(5)
    store.ensure_collection("recall", 32)
    rows = [
        row(f"i{n}", vector, f"p{n}", rare=n % 50, half=n % 2)
        for n, vector in enumerate(rng.normal(size=(20_000, 32)).astype(np.float32))
    ]
    store.upsert("recall", rows)
    for json in ({"rare": 7}, {"half": 1}, {"rare": {"lt": 5}}):
        filter, shares = parse_filter(json), []
        for query in rng.normal(size=(10, 32)).astype(np.float32):
            truth = best_scores(rows, query, filter)
            best = set(sorted(truth, key=lambda name: -truth[name])[:10])
            found = {hit.product_id for hit in store.search_products("recall", query, 10, filter)}
            shares.append(len(found & best) / 10)
        assert np.mean(shares) >= 0.99, (json, shares)
    store.drop_collection("recall")
    store.close()
