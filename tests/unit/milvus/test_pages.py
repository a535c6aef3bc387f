"""Pages are full and in order whatever the engine ranks, with few calls."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidInput
from core.types import SCORE_TOLERANCE, Hit
from milvus.pages import MAX_HITS, full_page

images = st.lists(st.tuples(st.integers(0, 30), st.integers(-3, 3)), max_size=300)


class Engine:
    """An exact engine over images of (product, score), which counts its calls."""

    def __init__(self, ranked: Sequence[tuple[int, float]]) -> None:
        self.hits = [
            Hit(f"i{number}", 1, f"p{product:05}", score) for number, (product, score) in enumerate(ranked)
        ]
        self.hits.sort(key=lambda hit: -hit.score)
        self.calls: list[int] = []

    def search(self, count: int, excluded: Sequence[str]) -> list[Hit]:
        assert count <= MAX_HITS
        self.calls.append(count)
        left_out = set(excluded)
        return [hit for hit in self.hits if hit.product_id not in left_out][:count]


@given(ranked=images, limit=st.integers(1, 40), exact=st.booleans())
def test_a_page_holds_the_best_distinct_products(
    ranked: list[tuple[int, int]], limit: int, exact: bool
) -> None:
    engine = Engine([(product, score / 3) for product, score in ranked])
    best: dict[str, float] = {}
    for hit in engine.hits:
        best.setdefault(hit.product_id, hit.score)
    expected = sorted(best.items(), key=lambda pair: (-pair[1], pair[0]))[:limit]
    page = full_page(engine.search, limit, exact=exact)
    assert [(hit.product_id, hit.score) for hit in page] == expected
    for shown in page:
        equals = [h for h in engine.hits if (h.product_id, h.score) == (shown.product_id, shown.score)]
        assert shown.image_id == min(hit.image_id for hit in equals)


class NoisyEngine(Engine):
    """Scores move by up to 1e-7 from answer to answer, as those of engines do."""

    def __init__(self, ranked: Sequence[tuple[int, float]], seed: int) -> None:
        super().__init__(ranked)
        self._noise = np.random.default_rng(seed)

    def search(self, count: int, excluded: Sequence[str]) -> list[Hit]:
        self.calls.append(count)
        left_out = set(excluded)
        kept = [hit for hit in self.hits if hit.product_id not in left_out]
        scores = np.array([hit.score for hit in kept]) + self._noise.uniform(-1e-7, 1e-7, len(kept))
        return [replace(kept[place], score=float(scores[place])) for place in np.argsort(-scores)[:count]]


@given(ranked=images, page=st.integers(1, 40), exact=st.booleans(), seed=st.integers(0, 2**32 - 1))
def test_pages_of_an_engine_whose_scores_move_repeat_and_skip_nothing(
    ranked: list[tuple[int, int]], page: int, exact: bool, seed: int
) -> None:
    # Each score lies where rounding to six places goes either way.
    ranked = [(product, score / 10 + 5e-7) for product, score in ranked]
    whole = full_page(Engine(ranked).search, 40, exact=exact)
    engine = NoisyEngine(ranked, seed)
    read: list[Hit] = []
    for offset in range(0, 40, page):
        read += full_page(engine.search, offset + page, exact=exact)[offset:]
    assert [(hit.product_id, hit.image_id) for hit in read] == [
        (hit.product_id, hit.image_id) for hit in whole
    ]
    assert [hit.score for hit in read] == pytest.approx([hit.score for hit in whole], abs=2e-7)


def test_scores_within_the_tolerance_of_the_best_of_them_tie_and_the_next_ones_do_not() -> None:
    step = 0.4 * SCORE_TOLERANCE
    engine = Engine([(9 - number, 0.5 - number * step) for number in range(6)])
    page = full_page(engine.search, 6, exact=True)
    assert [hit.product_id for hit in page] == [f"p{number:05}" for number in (7, 8, 9, 4, 5, 6)]
    assert [hit.score for hit in page] == [0.5] * 3 + [0.5 - 3 * step] * 3


def test_an_ordinary_page_takes_one_call() -> None:
    engine = Engine([(number // 3, 1 - number / 10_000) for number in range(6000)])
    assert len(full_page(engine.search, 100, exact=True)) == 100
    assert len(engine.calls) == 1


def test_a_page_reaches_beyond_the_largest_answer_of_a_server() -> None:
    engine = Engine([(0, 0.9)] * (MAX_HITS + 10) + [(number, 0.5) for number in range(1, 30)])
    page = full_page(engine.search, 20, exact=True)
    assert [hit.product_id for hit in page] == [f"p{number:05}" for number in range(20)]


def test_excluded_products_stay_out_of_every_round() -> None:
    engine = Engine([(number % 40, 1 - number / 1000) for number in range(400)])
    page = full_page(engine.search, 40, ["p00000", "p00007"], exact=True)
    assert len(page) == 38
    assert not {"p00000", "p00007"} & {hit.product_id for hit in page}


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(InvalidInput):
        full_page(Engine([]).search, 0, exact=True)
