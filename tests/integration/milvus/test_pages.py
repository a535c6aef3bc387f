"""Pages of distinct products are always full and in order, however many images a product has."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from core.errors import InvalidInput
from core.filters import parse_filter
from core.ports import VectorStore
from core.types import SCORE_TOLERANCE, Hit, Vector, VectorRow
from milvus.config import IndexConfig, MilvusConfig
from milvus.store import MilvusStore
from tests.support.vector_stores import best_scores, row, unit

sizes = st.lists(
    st.one_of(st.integers(1, 3), st.integers(1, 3), st.integers(1, 200)), min_size=1, max_size=60
)
spreads = st.sampled_from([0.0, 1e-7, 1e-3, 0.3])
"""How far images of a product lie apart; 0 makes them equal, so that scores tie."""


@dataclass(frozen=True)
class Catalog:
    """Products of 1 to 200 near-identical images, and a tail of single ones to fill deep pages."""

    seed: int
    sizes: list[int]
    tail: int
    spread: float
    paired: bool

    def rows(self) -> list[VectorRow]:
        """Draw the images; the second of a pair lies where the first does."""
        rng = np.random.default_rng(self.seed)
        counts = [*self.sizes, *[1] * self.tail]
        centers = rng.normal(size=(len(counts), 8))
        if self.paired:
            centers[1::2] = centers[: 2 * (len(counts) // 2) : 2]
        vectors = [
            (c, (center + rng.normal(0, self.spread, (n, 8))).astype(np.float32))
            for c, (center, n) in enumerate(zip(centers, counts, strict=True))
        ]
        return [
            row(f"i{number}-{view}", vector, f"p{number}", g=number % 3)
            for number, views in vectors
            for view, vector in enumerate(views)
        ]


seeds = st.integers(0, 2**32 - 1)


def drawn(rng: np.random.Generator) -> Vector:
    return rng.normal(size=8).astype(np.float32)


catalogs = st.builds(Catalog, seeds, sizes, st.sampled_from([0, 40, 1100]), spreads, st.booleans())


def test_any_page_is_what_brute_force_finds(store: VectorStore, collection: str) -> None:
    # Each example writes a catalog: making a failing one smaller would take minutes.
    @settings(
        max_examples=12, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(catalogs, st.integers(0, 1000), st.integers(1, 100), st.integers(0, 3), seeds)
    @example(Catalog(7, [200, 200, 150, *range(1, 200, 10), *[2] * 100], 0, 1e-3, False), 440, 60, 3, 100)
    @example(Catalog(7, [200, 200, 150, *range(1, 200, 10), *[2] * 100], 0, 1e-3, False), 9, 1, 1, 101)
    @example(Catalog(9, [5] * 200, tail=1100, spread=1e-3, paired=False), 200, 1100, 3, 102)
    # An image scores -0.519482 in Lite's shallow answer and -0.519481 in its deep one.
    @example(
        Catalog(237, [120, 3, 187, 3, 2, 3, 193, 145, 22, 157, 3, 3], 40, 0.3, False), 121, 97, 0, 7298753
    )
    def agree(catalog: Catalog, offset: int, limit: int, group: int, seed: int) -> None:
        rows = catalog.rows()
        store.delete(collection, list(store.keys(collection)))
        store.upsert(collection, rows)
        rng = np.random.default_rng(seed)
        query = rows[seed % len(rows)].vector if seed % 2 else drawn(rng)
        filter = parse_filter({"g": group}) if group < 3 else None
        truth = best_scores(rows, query, filter)
        deep = store.search_products(collection, query, offset + limit, filter)
        _check_page(deep, rows, truth, query, offset + limit)
        shallow = store.search_products(collection, query, limit, filter)
        _check_continues(shallow, deep, truth)

    agree()


def test_one_product_with_hundreds_of_images_hides_no_other(store: VectorStore, collection: str) -> None:
    rng = np.random.default_rng(8)
    near = [row(f"near{i}", unit(1, *rng.normal(0, 1e-3, 7)), "near") for i in range(1500)]
    far = [row(f"far{i}", unit(-1, 0.1 * i), f"far{i}") for i in range(12)]
    store.upsert(collection, near + far)
    hits = store.search_products(collection, unit(1), 10)
    _check_page(hits, near + far, best_scores(near + far, unit(1)), unit(1), 10)
    assert len(store.search_products(collection, unit(1), 50)) == 13


def test_excluded_products_are_left_out(store: VectorStore, collection: str) -> None:
    store.upsert(collection, [row(f"i{i}", unit(1, i), f'p"{i}') for i in range(9)])
    hits = store.search_products(collection, unit(1), 9, exclude_products=['p"0', 'p"3', "missing"])
    assert [hit.image_id for hit in hits] == ["i1", "i2", "i4", "i5", "i6", "i7", "i8"]


def _check_page(
    hits: Sequence[Hit], rows: Sequence[VectorRow], truth: dict[str, float], query: Any, limit: int
) -> None:
    ranked = sorted(truth.values(), reverse=True)[:limit]
    assert len(hits) == len({hit.product_id for hit in hits}) == len(ranked)
    assert list(hits) == sorted(hits, key=lambda hit: (-hit.score, hit.product_id))
    np.testing.assert_allclose([hit.score for hit in hits], ranked, atol=3e-6)
    np.testing.assert_allclose([truth[hit.product_id] for hit in hits], ranked, atol=3e-6)
    images = {each.item.image_id: each for each in rows}
    own = [best_scores([images[hit.image_id]], query)[hit.product_id] for hit in hits]
    np.testing.assert_allclose(own, ranked, atol=3e-6)


def _check_continues(shallow: Sequence[Hit], deep: Sequence[Hit], truth: dict[str, float]) -> None:
    """Compare pages of two depths: alike but for products whose scores differ by about the tolerance."""
    np.testing.assert_allclose(
        [hit.score for hit in shallow], [hit.score for hit in deep[: len(shallow)]], atol=2 * SCORE_TOLERANCE
    )
    scores = sorted(truth.values())
    for one, other in zip(shallow, deep, strict=False):
        score = truth[one.product_id]
        near = bisect_right(scores, score + 3e-6) - bisect_left(scores, score - 3e-6)
        equal = bisect_right(scores, score + 1e-12) - bisect_left(scores, score - 1e-12)
        if near == equal:
            assert one.product_id == other.product_id


def test_scores_equal_brute_force(store: VectorStore, collection: str) -> None:
    rng = np.random.default_rng(11)
    sizes = [200, 150, *(int(size) for size in rng.integers(1, 6, 60))]
    rows = [
        row(f"i{number}-{image}", drawn(rng), f"p{number}", group=number % 3)
        for number, size in enumerate(sizes)
        for image in range(size)
    ]
    store.upsert(collection, rows)
    for filter in (None, parse_filter({"group": 1})):
        query = drawn(rng)
        asked = ["p0", "missing", "p1", "p7", "p7", *(f"p{number}" for number in range(20, 62))]
        truth = {p: score for p, score in best_scores(rows, query, filter).items() if p in asked}
        hits = store.score_products(collection, query, asked, filter)
        _check_page(hits, rows, truth, query, len(truth))


def test_scores_are_those_of_a_search(store: VectorStore, collection: str) -> None:
    rng = np.random.default_rng(12)
    store.upsert(
        collection,
        [row(f"i{n}", drawn(rng), f"p{n // 2}", shade="red") for n in range(60)],
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
    rows = [row(f"i{n}", drawn(rng), f"p{n // 3}") for n in range(3000)]
    store.ensure_collection("scores_hnsw", 8)
    store.upsert("scores_hnsw", rows)
    query = drawn(rng)
    asked = [f"p{number}" for number in range(0, 1000, 9)]
    truth = {p: score for p, score in best_scores(rows, query).items() if p in asked}
    hits = store.score_products("scores_hnsw", query, asked)
    assert {hit.product_id: hit.score for hit in hits} == pytest.approx(truth, abs=3e-6)
    store.drop_collection("scores_hnsw")
    store.close()
