"""Pages are full and in order whatever the engine ranks, with few calls."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidInput
from core.types import Hit
from milvus.pages import MAX_HITS, full_page

pictures = st.lists(st.tuples(st.integers(0, 30), st.integers(-3, 3)), max_size=300)


class Engine:
    """An exact engine over pictures of (product, score), which counts its calls."""

    def __init__(self, ranked: Sequence[tuple[int, float]]) -> None:
        self.hits = [
            Hit(f"i{number}", 1, f"p{product:05}", score) for number, (product, score) in enumerate(ranked)
        ]
        self.hits.sort(key=lambda hit: -hit.score)
        self.calls: list[int] = []

    def search(self, count: int, excluded: Sequence[str]) -> list[Hit]:
        assert count <= MAX_HITS
        self.calls.append(count)
        return [hit for hit in self.hits if hit.product_id not in set(excluded)][:count]


@given(ranked=pictures, limit=st.integers(1, 40), exact=st.booleans())
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
