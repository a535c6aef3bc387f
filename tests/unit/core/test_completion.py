"""Weighted fusion with exact scores: members are asked for what only others have found."""

import asyncio
from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from core.ensemble import EnsembleSearch
from core.errors import StoreUnavailable
from core.filters import Filter, parse_filter
from core.fusion import Fusion
from core.search import ModelSearch, QueryPart, SearchQuery, SearchResult
from core.types import Encoded, EncoderInfo, EncoderInput, Hit, IndexItem, Vector, VectorRow
from milvus.memory import MemoryStore

DIMENSION = 4


class TextEncoder:
    """An encoder with one vector for all texts, which counts its calls."""

    def __init__(self, name: str, vector: Vector) -> None:
        self.name, self.vector, self.calls = name, vector, 0
        self.info = EncoderInfo(name, "fake", "", "0" * 12, DIMENSION, ("text",), "fp32", "cpu")

    async def describe(self) -> EncoderInfo:
        return self.info

    async def encode(self, inputs: list[EncoderInput]) -> Encoded:
        self.calls += 1
        return Encoded(self.info, [self.vector for _ in inputs])


class Member(ModelSearch):
    """A member that may be slow, or fail, when it is asked for scores."""

    delay_s = 0.0
    error: Exception | None = None
    asked: tuple[str, ...] = ()

    async def score(self, embedded: object, products: object, filter: Filter | None = None) -> list[Hit]:
        self.asked = tuple(cast(list[str], products))
        await asyncio.sleep(self.delay_s)
        if self.error is not None:
            raise self.error
        return await super().score(embedded, products, filter)  # type: ignore[arg-type]


@pytest.fixture
def catalog() -> tuple[MemoryStore, dict[str, np.ndarray]]:
    """300 products of two images in the collections of two members that disagree; attribute n % 2."""
    store, rng = MemoryStore(), np.random.default_rng(3)
    vectors = {}
    for name in ("a", "b"):
        vectors[name] = rng.normal(size=(300, 2, DIMENSION)).astype(np.float32)
        store.ensure_collection(f"{name}_{'0' * 12}", DIMENSION)
        store.upsert(
            f"{name}_{'0' * 12}",
            [
                VectorRow(IndexItem(f"i{n}-{k}", 1, f"p{n}", "0" * 64, {"odd": n % 2}), vectors[name][n, k])
                for n in range(300)
                for k in range(2)
            ],
        )
    return store, vectors


def members(store: MemoryStore) -> dict[str, Member]:
    queries = {"a": np.array([1, 0, 0, 0], np.float32), "b": np.array([0, 1, 0, 0], np.float32)}
    return {name: Member(TextEncoder(name, vector), store) for name, vector in queries.items()}


def search(
    found_by: dict[str, Member], query: SearchQuery, fusion: Fusion = "weighted", deadline_s: float = 2.0
) -> SearchResult:
    query = replace(query, weights={"a": 2.0, "b": 1.0}, fusion=fusion)
    return asyncio.run(EnsembleSearch(found_by, deadline_s).search(query))


def exact(vectors: dict[str, np.ndarray], only_odd: bool = False) -> dict[str, float]:
    """The weighted mean by brute force over the candidates: each member's 64 best products."""
    scores = {}
    for axis, name in enumerate(("a", "b")):
        unit = vectors[name] / np.linalg.norm(vectors[name], axis=2, keepdims=True)
        scores[name] = unit[:, :, axis].max(axis=1)
    rows = [n for n in range(300) if n % 2 or not only_odd]
    candidates = set()
    for name in ("a", "b"):
        candidates |= set(sorted(rows, key=lambda n: -scores[name][n])[:64])
    total = dict.fromkeys(candidates, 0.0)
    for name, weight in (("a", 2 / 3), ("b", 1 / 3)):
        held = [scores[name][n] for n in candidates]
        for n in candidates:
            total[n] += weight * (scores[name][n] - min(held)) / (max(held) - min(held))
    return {f"p{n}": score for n, score in total.items()}


def test_scores_are_the_exact_weighted_mean_over_all_candidates(
    catalog: tuple[MemoryStore, dict[str, np.ndarray]],
) -> None:
    store, vectors = catalog
    result = search(members(store), SearchQuery((QueryPart("x"),), limit=30))
    truth = exact(vectors)
    best = sorted(truth, key=lambda product: -truth[product])[:30]
    assert [hit.product_id for hit in result.hits] == best
    assert [hit.score for hit in result.hits] == pytest.approx([truth[p] for p in best], abs=1e-5)
    assert (result.degraded, result.incomplete) == (False, {})
    assert {"a.score", "b.score"} <= set(result.timings_ms)


def test_scores_are_asked_under_the_filter(catalog: tuple[MemoryStore, dict[str, np.ndarray]]) -> None:
    store, vectors = catalog
    query = SearchQuery((QueryPart("x"),), limit=10, filter=parse_filter({"odd": 1}))
    result = search(members(store), query)
    truth = exact(vectors, only_odd=True)
    assert {hit.product_id: hit.score for hit in result.hits} == pytest.approx(
        {hit.product_id: truth[hit.product_id] for hit in result.hits}, abs=1e-5
    )


def test_ranks_need_no_scores(catalog: tuple[MemoryStore, dict[str, np.ndarray]]) -> None:
    found_by = members(catalog[0])
    search(found_by, SearchQuery((QueryPart("x"),), limit=5), fusion="rrf")
    assert [member.asked for member in found_by.values()] == [(), ()]


def test_a_member_is_asked_only_for_what_its_list_does_not_hold(
    catalog: tuple[MemoryStore, dict[str, np.ndarray]],
) -> None:
    found_by = members(catalog[0])
    query = SearchQuery((QueryPart("x"),), limit=5)
    search(found_by, query)
    own = asyncio.run(found_by["a"].search(SearchQuery((QueryPart("x"),), limit=64)))
    assert found_by["a"].asked
    assert not {hit.product_id for hit in own.hits} & set(found_by["a"].asked)


def test_a_member_that_cannot_complete_in_time_contributes_what_it_has(
    catalog: tuple[MemoryStore, dict[str, np.ndarray]],
) -> None:
    slow = members(catalog[0])
    slow["b"].delay_s = 30
    result = search(slow, SearchQuery((QueryPart("x"),), limit=10), deadline_s=2)
    assert len(result.hits) == 10
    assert result.degraded
    assert list(result.incomplete) == ["b"]
    assert "did not score" in result.incomplete["b"]
    assert [info.name for info in result.versions] == ["a", "b"]
    assert result.skipped == {}


def test_a_store_that_goes_away_between_list_and_scores_is_named(
    catalog: tuple[MemoryStore, dict[str, np.ndarray]],
) -> None:
    failing = members(catalog[0])
    failing["a"].error = StoreUnavailable("Milvus did not answer")
    result = search(failing, SearchQuery((QueryPart("x"),), limit=10))
    assert result.incomplete == {"a": "Milvus did not answer"}
    assert result.degraded
    assert len(result.hits) == 10


def test_a_bug_between_list_and_scores_is_named_and_logged(
    catalog: tuple[MemoryStore, dict[str, np.ndarray]], caplog: pytest.LogCaptureFixture
) -> None:
    failing = members(catalog[0])
    failing["a"].error = ZeroDivisionError("a bug of ours")
    result = search(failing, SearchQuery((QueryPart("x"),), limit=10))
    assert "internal error" in result.incomplete["a"]
    assert len(result.hits) == 10
    assert "ZeroDivisionError: a bug of ours" in caplog.text


def test_a_candidate_that_a_member_has_not_indexed_counts_as_its_last(
    catalog: tuple[MemoryStore, dict[str, np.ndarray]],
) -> None:
    store = catalog[0]
    item = IndexItem("new", 1, "new", "0" * 64, {})
    store.upsert(f"a_{'0' * 12}", [VectorRow(item, np.array([1, 0, 0, 0], np.float32))])
    result = search(members(store), SearchQuery((QueryPart("x"),), limit=300))
    scores = {hit.product_id: hit.score for hit in result.hits}
    assert scores["new"] == pytest.approx(2 / 3, abs=1e-5)
    assert not result.degraded


def test_a_vector_that_is_known_is_not_made_again(
    catalog: tuple[MemoryStore, dict[str, np.ndarray]],
) -> None:
    found_by = members(catalog[0])
    encoder = cast(TextEncoder, found_by["a"]._encoder)
    embedded = asyncio.run(found_by["a"].embed(SearchQuery((QueryPart("x"),))))
    query = SearchQuery((QueryPart("x"),), limit=5, embedded={"a": embedded})
    result = search(found_by, query)
    assert encoder.calls == 1
    assert cast(TextEncoder, found_by["b"]._encoder).calls == 1
    assert result.timings_ms["a.encode"] == embedded.timings_ms["encode"]
