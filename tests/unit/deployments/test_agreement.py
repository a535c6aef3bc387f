"""Agreement of two lists."""

import pytest

from deployments.services.compare import agreement, correlate_ranks


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("abcde", "abcde", 1.0),
        ("abcde", "edcba", -1.0),
        ("abcd", "abdc", 2 / 3),
        # Of three pairs two agree (a before b, a before c), and b, c are the other way round.
        ("ab", "ac", 1 / 3),
        ("abcdefghij", "klmnopqrst", -2 * 10 / (3 * 10 - 1)),
        ("a", "b", -1.0),
        ("a", "a", None),
        ("", "abc", None),
        ("", "", None),
    ],
)
def test_ranks_are_correlated_over_the_union(first: str, second: str, expected: float | None) -> None:
    found = correlate_ranks(list(first), list(second))
    assert found == (None if expected is None else pytest.approx(expected))
    assert correlate_ranks(list(second), list(first)) == found


def test_overlap_is_counted_and_weighed() -> None:
    found = agreement(("m", "n"), (list("abcd"), list("cdef")))
    assert (found.models, found.shared, found.jaccard) == (("m", "n"), 2, pytest.approx(1 / 3))
    assert agreement(("m", "n"), ([], [])).jaccard is None
