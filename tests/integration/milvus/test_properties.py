"""Pages and filters of every engine against brute force, on catalogs and filters that hypothesis makes up."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from core.filters import matches, parse_filter
from core.ports import VectorStore
from core.types import SCORE_TOLERANCE, Hit, IndexItem, VectorRow
from tests.support.filter_cases import cases
from tests.support.vector_stores import best_scores, row, unit

BOUNDED = settings(
    # Each example writes a catalog: making a failing one smaller would take minutes.
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)

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
    twins: bool

    def rows(self) -> list[VectorRow]:
        """Draw the images; the second of twins lies where the first does."""
        rng = np.random.default_rng(self.seed)
        counts = [*self.sizes, *[1] * self.tail]
        centers = rng.normal(size=(len(counts), 8))
        if self.twins:
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
catalogs = st.builds(Catalog, seeds, sizes, st.sampled_from([0, 40, 1100]), spreads, st.booleans())


def replace_rows(store: VectorStore, collection: str, rows: Sequence[VectorRow]) -> None:
    store.delete(collection, list(store.keys(collection)))
    store.upsert(collection, rows)


def test_any_page_is_what_brute_force_finds(store: VectorStore, collection: str) -> None:
    @settings(BOUNDED, max_examples=12)
    @given(catalogs, st.integers(0, 1000), st.integers(1, 100), st.integers(0, 3), seeds)
    # An image scores -0.519482 in Lite's shallow answer and -0.519481 in its deep one.
    @example(
        catalog=Catalog(
            237, [120, 3, 187, 3, 2, 3, 193, 145, 22, 157, 3, 3], tail=40, spread=0.3, twins=False
        ),
        offset=121,
        limit=97,
        group=0,
        seed=7298753,
    )
    def agree(catalog: Catalog, offset: int, limit: int, group: int, seed: int) -> None:
        rows = catalog.rows()
        replace_rows(store, collection, rows)
        rng = np.random.default_rng(seed)
        query = rows[seed % len(rows)].vector if seed % 2 else rng.normal(size=8).astype(np.float32)
        filter = parse_filter({"g": group}) if group < 3 else None
        truth = best_scores(rows, query, filter)
        deep = store.search_products(collection, query, offset + limit, filter)
        check_page(deep, rows, truth, query, offset + limit)
        shallow = store.search_products(collection, query, limit, filter)
        check_continues(shallow, deep, truth)

    agree()


def check_page(
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


def check_continues(shallow: Sequence[Hit], deep: Sequence[Hit], truth: dict[str, float]) -> None:
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


def test_any_filter_means_the_same_everywhere(store: VectorStore, collection: str) -> None:
    telling = []

    @settings(BOUNDED, max_examples=30)
    @given(cases())
    def agree(case: tuple[list[dict[str, Any]], list[dict[str, Any]]]) -> None:
        products, filters = case
        rows = [
            VectorRow(IndexItem(f"i{n}", 1, f"p{n}", "0" * 64, attributes), unit(1, n))
            for n, attributes in enumerate(products)
        ]
        replace_rows(store, collection, rows)
        for json in filters:
            filter = parse_filter(json)
            expected = {each.item.product_id for each in rows if matches(filter, each.item.attributes)}
            hits = store.search_products(collection, unit(1), len(rows), filter)
            assert {hit.product_id for hit in hits} == expected, json
            telling.append(0 < len(expected) < len(rows))

    agree()
    assert sum(telling) > len(telling) / 20, "too few filters tell rows apart"
