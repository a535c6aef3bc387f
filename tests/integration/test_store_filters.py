"""A filter lets the same products through on every engine as its meaning in Python does."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.filters import matches, parse_filter
from core.ports import VectorStore
from core.types import IndexItem, VectorRow
from milvus.config import IndexConfig, MilvusConfig
from milvus.store import MilvusStore
from tests.vector_rows import best_scores, row, unit

NAMES = ["color", "price", "a.b", 'q"]["x', "sp ace~/%", "ü", "", "names", "\\", "and"]
TEXTS = [
    "",
    "red",
    "Red",
    "re",
    'it\'s "q" \\ %_',
    "\n\t\b\x00\x01\x7f",
    "ü漢😀",
    "\ud7ff",
    "\U0010ffff",
    "1",
]
NUMBERS = [0, 1, -1, 1.5, -0.0, 2**53 + 1, 2**63, -(2**64), 1e-5, 1e300, 10**400]
scalars = st.sampled_from([*TEXTS, *NUMBERS, True, False])
askable = scalars.filter(lambda value: value != 10**400)
ordered = askable.filter(lambda value: not isinstance(value, bool))
attribute = st.one_of(scalars, st.none(), st.lists(scalars, max_size=3), st.just({"nested": 1}))
catalogues = st.lists(
    st.dictionaries(st.sampled_from(NAMES), attribute, max_size=5), min_size=40, max_size=40
)
conditions = st.one_of(
    askable,
    st.lists(askable, max_size=4),
    st.fixed_dictionaries({"exists": st.booleans()}),
    st.fixed_dictionaries({"prefix": st.sampled_from([*TEXTS, "r", "\U0010ffff\U0010ffff"])}),
    st.dictionaries(st.sampled_from(["gt", "gte", "lt", "lte"]), ordered, min_size=1, max_size=2),
)
keys = st.sampled_from([f"\\{name}" for name in NAMES])
filters = st.recursive(
    st.dictionaries(keys, conditions, max_size=2),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"not": inner}),
        st.fixed_dictionaries({"and": st.lists(inner, max_size=3)}),
        st.fixed_dictionaries({"or": st.lists(inner, max_size=3)}),
    ),
    max_leaves=6,
)
fuzz = settings(
    max_examples=4, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True
)


@fuzz
@given(catalogue=catalogues, asked=st.lists(filters, min_size=40, max_size=40))
def test_every_engine_agrees_with_the_meaning(
    store: VectorStore, collection: str, catalogue: list[dict[str, object]], asked: list[dict[str, object]]
) -> None:
    store.delete(collection, list(store.keys(collection)))
    rows = [
        VectorRow(IndexItem(f"i{n}", 1, f"p{n}", "", attributes), unit(1, n))
        for n, attributes in enumerate(catalogue)
    ]
    store.upsert(collection, rows)
    for json in asked:
        filter = parse_filter(json)
        expected = {each.item.product_id for each in rows if matches(filter, each.item.attributes)}
        found = {hit.product_id for hit in store.search_products(collection, unit(1), 40, filter)}
        assert found == expected, json


@pytest.mark.parametrize("engine", ["lite", "server"])
def test_recall_under_a_selective_filter_is_near_exact(engine: str, request: pytest.FixtureRequest) -> None:
    uri = request.getfixturevalue(f"{engine}_uri")
    index = IndexConfig(index_type="HNSW") if engine == "server" else IndexConfig()
    store = MilvusStore(MilvusConfig(uri=uri, index=index))
    rng = np.random.default_rng(5)
    store.ensure_collection("recall", 32)
    rows = [
        row(f"i{n}", vector, f"p{n}", rare=n % 50, half=n % 2)
        for n, vector in enumerate(rng.normal(size=(6000, 32)).astype(np.float32))
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
