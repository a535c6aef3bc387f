"""Searches under a filter: shares are counted seldom, and parts together pass what the filter passes."""

import re

import pytest

from milvus.config import IndexConfig
from milvus.selectivity import Shares, parts, width


def test_a_share_is_counted_once_for_some_time_and_not_without_a_filter() -> None:
    counted: list[tuple[str, str]] = []

    def count(collection: str, expression: str) -> int:
        counted.append((collection, expression))
        return 10 if expression else 40

    shares = Shares(count)
    assert shares.of("a", "") == 1.0
    assert counted == []
    assert [shares.of("a", "x") for _ in range(3)] == [0.25] * 3
    assert counted == [("a", "x"), ("a", "")]
    assert shares.of("b", "x") == 0.25


def test_an_empty_collection_has_a_share() -> None:
    assert Shares(lambda *_: 0).of("a", "x") == 0.0


@pytest.mark.parametrize(
    ("share", "number"), [(0.0, 1), (0.001, 1), (0.05, 1), (0.06, 2), (0.1, 2), (0.2, 4), (0.3, 1), (1.0, 1)]
)
def test_what_is_too_much_to_compare_and_too_little_for_a_graph_is_searched_in_parts(
    share: float, number: int
) -> None:
    made = parts("x or y", share)
    assert len(made) == number
    if number > 1:
        found = [re.fullmatch(r"\(x or y\) and \(revision % (\d) == (\d)\)", each) for each in made]
        assert [(int(each[1]), int(each[2])) for each in found if each] == [
            (number, part) for part in range(number)
        ]


def test_a_search_is_wider_the_fewer_rows_pass_and_within_bounds() -> None:
    index = IndexConfig()
    assert width(1.0, 50, index) == index.min_ef
    assert width(0.5, 50, index) < width(0.25, 50, index) < width(0.06, 50, index)
    assert width(0.0, 50, index) <= index.max_ef
    assert width(1.0, 5000, index) == 10_000
    assert width(1.0, 16384, index) == 16384
