"""Weighted fusion with exact scores: members are asked for what only others have found."""

import asyncio
from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from core.ensemble import EnsembleSearch
from core.errors import StoreUnavailable
from core.filters import Filter, parse_filter
from core.search import ModelSearch, QueryPart, SearchQuery, SearchResult
from core.types import Encoded, EncoderInfo, EncoderInput, Hit, Vector
from milvus.memory import MemoryStore
from tests.support.vector_stores import row

DIMENSION, PRODUCTS = 4, 300
VERSION = "0" * 12
WEIGHTS = {"a": 2.0, "b": 1.0}
QUERY = SearchQuery((QueryPart("x"),), limit=10)


class TextEncoder:
    """An encoder with one vector for all texts, which counts its calls."""

    def __init__(self, name: str, vector: Vector) -> None:
        self.name, self.vector, self.calls = name, vector, 0
        self.info = EncoderInfo(name, "fake", "", VERSION, DIMENSION, ("text",), "fp32", "cpu")

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


class Shop:
    """300 products of two images in the collections of two members that disagree; attribute n % 2."""

    def __init__(self) -> None:
        self.store, rng = MemoryStore(), np.random.default_rng(3)
        self.vectors = {
            name: rng.normal(size=(PRODUCTS, 2, DIMENSION)).astype(np.float32) for name in WEIGHTS
        }
        for name, vectors in self.vectors.items():
            self.store.ensure_collection(f"{name}_{VERSION}", DIMENSION)
            rows = [
                row(f"i{n}-{k}", vectors[n, k], f"p{n}", odd=n % 2) for n in range(PRODUCTS) for k in (0, 1)
            ]
            self.store.upsert(f"{name}_{VERSION}", rows)
        axes = np.eye(DIMENSION, dtype=np.float32)
        self.encoders = {name: TextEncoder(name, axes[number]) for number, name in enumerate(WEIGHTS)}
        self.members = {name: Member(encoder, self.store) for name, encoder in self.encoders.items()}

    def search(self, query: SearchQuery = QUERY, deadline_s: float = 30) -> SearchResult:
        query = replace(query, weights=WEIGHTS, fusion=query.fusion or "weighted")
        return asyncio.run(EnsembleSearch(self.members, deadline_s).search(query))

    def truth(self, only_odd: bool = False) -> dict[str, float]:
        """The weighted mean by brute force over the candidates: each member's 64 best products."""
        rows = np.arange(1 if only_odd else 0, PRODUCTS, 2 if only_odd else 1)
        scores = {}
        for axis, (name, vectors) in enumerate(self.vectors.items()):
            unit = vectors / np.linalg.norm(vectors, axis=2, keepdims=True)
            scores[name] = unit[:, :, axis].max(axis=1)
        best = {int(n) for each in scores.values() for n in rows[np.argsort(-each[rows])][:64]}
        candidates = sorted(best)
        total = np.zeros(len(candidates))
        for name, weight in (("a", 2 / 3), ("b", 1 / 3)):
            held = scores[name][candidates]
            total += weight * (held - held.min()) / (held.max() - held.min())
        return {f"p{n}": float(score) for n, score in zip(candidates, total, strict=True)}


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.mark.parametrize("only_odd", [False, True])
def test_scores_are_the_exact_weighted_mean_over_all_candidates_under_the_filter(
    only_odd: bool, shop: Shop
) -> None:
    result = shop.search(replace(QUERY, limit=30, filter=parse_filter({"odd": 1}) if only_odd else None))
    truth = shop.truth(only_odd)
    best = sorted(truth, key=lambda product: -truth[product])[:30]
    assert [hit.product_id for hit in result.hits] == best
    assert [hit.score for hit in result.hits] == pytest.approx([truth[p] for p in best], abs=1e-5)
    assert (result.degraded, result.incomplete) == (False, {})
    assert {"a.score", "b.score"} <= set(result.timings_ms)


def test_a_member_is_asked_only_for_what_its_list_does_not_hold_and_for_ranks_not_at_all(shop: Shop) -> None:
    shop.search(replace(QUERY, fusion="rrf"))
    assert [member.asked for member in shop.members.values()] == [(), ()]
    shop.search()
    own = asyncio.run(shop.members["a"].search(replace(QUERY, limit=64)))
    assert shop.members["a"].asked
    assert not {hit.product_id for hit in own.hits} & set(shop.members["a"].asked)


@pytest.mark.parametrize(
    ("delay_s", "error", "reason"),
    [
        (30, None, "did not score"),
        (0, StoreUnavailable("Milvus did not answer"), "Milvus did not answer"),
        (0, ZeroDivisionError("a bug of ours"), "internal error"),
    ],
)
def test_a_member_that_cannot_score_contributes_what_it_has(
    delay_s: float, error: Exception | None, reason: str, shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    shop.members["b"].delay_s, shop.members["b"].error = delay_s, error
    result = shop.search(deadline_s=2 if delay_s else 30)
    assert len(result.hits) == 10
    assert result.degraded
    assert list(result.incomplete) == ["b"]
    assert reason in result.incomplete["b"]
    assert [info.name for info in result.versions] == ["a", "b"]
    assert result.skipped == {}
    assert ("ZeroDivisionError: a bug of ours" in caplog.text) == (reason == "internal error")


def test_a_candidate_that_a_member_has_not_indexed_counts_as_its_last(shop: Shop) -> None:
    shop.store.upsert(f"a_{VERSION}", [row("new", np.array([1, 0, 0, 0], np.float32), "new")])
    result = shop.search(replace(QUERY, limit=300))
    scores = {hit.product_id: hit.score for hit in result.hits}
    assert scores["new"] == pytest.approx(2 / 3, abs=1e-5)
    assert not result.degraded


def test_a_vector_that_is_known_is_not_made_again(shop: Shop) -> None:
    embedded = asyncio.run(shop.members["a"].embed(QUERY))
    result = shop.search(replace(QUERY, embedded={"a": embedded}))
    assert [encoder.calls for encoder in shop.encoders.values()] == [1, 1]
    assert result.timings_ms["a.encode"] == embedded.timings_ms["encode"]
