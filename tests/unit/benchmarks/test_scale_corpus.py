"""The products of the run at scale: each size holds the smaller ones, and exact answers are exact."""

import numpy as np
import pytest

from benchmarks.scale.corpus import BATCH, FILTERS, Corpus, vector_of
from benchmarks.scale_run import ratios
from core.filters import matches, parse_filter
from core.types import is_unit


@pytest.fixture
def corpus() -> Corpus:
    made = Corpus(dimension=8, queries=3)
    list(made.grow(2 * BATCH))
    return made


def test_a_larger_size_begins_with_the_products_of_the_smaller(corpus: Corpus) -> None:
    first, second = Corpus(8, 3).grow(2 * BATCH)
    assert [batch.first for batch in (first, second)] == [0, BATCH]
    (third,) = corpus.grow(3 * BATCH)
    assert third.first == corpus.size - BATCH == 2 * BATCH
    whole = list(Corpus(8, 3).grow(3 * BATCH))
    assert np.array_equal(whole[2].vectors, third.vectors)
    assert whole[0].attributes(5) == first.attributes(5)


def test_a_size_that_is_no_whole_number_of_batches_is_refused(corpus: Corpus) -> None:
    with pytest.raises(ValueError, match="multiple"):
        list(corpus.grow(corpus.size + 1))


def test_the_products_that_pass_a_filter_are_those_that_the_service_finds() -> None:
    (batch,) = Corpus(8, 3).grow(BATCH)
    for name, body in FILTERS.items():
        passing = [
            body is None or matches(parse_filter(body), batch.attributes(index)) for index in range(BATCH)
        ]
        assert batch.passes(name).tolist() == passing


def test_about_as_many_products_pass_as_the_name_of_the_filter_says(corpus: Corpus) -> None:
    list(corpus.grow(50 * BATCH))
    for name, share in {"plain": 1.0, "10 %": 0.1, "1 %": 0.01, "0.1 %": 0.001}.items():
        assert corpus.passing(name) == pytest.approx(share * corpus.size, rel=0.3)


def test_the_exact_answers_are_the_best_of_those_that_pass(corpus: Corpus) -> None:
    batches = list(Corpus(8, 3).grow(corpus.size))
    for query, best in zip(corpus.queries, corpus.nearest("10 %", 5), strict=True):
        scores = {
            batch.product_id(int(index)): float(batch.vectors[index] @ query)
            for batch in batches
            for index in np.flatnonzero(batch.passes("10 %"))
        }
        assert set(best) == set(sorted(scores, key=lambda each: -scores[each])[:5])


def test_where_fewer_pass_than_are_asked_for_the_exact_answer_is_all_of_them(corpus: Corpus) -> None:
    few = corpus.passing("0.1 %")
    assert few < 50
    assert {len(each) for each in corpus.nearest("0.1 %", 50)} == {few}


def test_vectors_are_unit_vectors_that_a_file_decides() -> None:
    assert all(is_unit(vector) for vector in Corpus(8, 3).queries)
    assert is_unit(vector_of(b"a file", 8))
    assert np.array_equal(vector_of(b"a file", 8), vector_of(b"a file", 8))
    assert not np.array_equal(vector_of(b"a file", 8), vector_of(b"another", 8))


def test_ratios_compare_the_largest_size_with_the_smallest() -> None:
    def figures(plain: float, repair: float, recall: float) -> dict[str, object]:
        search = {
            name: {"p50_ms": plain * factor, "recall": recall} for factor, name in enumerate(FILTERS, 1)
        }
        return {"search": search, "repair": {"p50_ms": repair}}

    found = ratios({10: figures(4, 2, 1), 100: figures(5, 9, 1), 1000: figures(6, 3, 0.99)})
    assert found == {
        "search_p50": 1.5,
        "repair_p50": 1.5,
        "filtered_over_plain": {"10 %": 2.0, "1 %": 3.0, "0.1 %": 4.0},
        "least_recall": 0.99,
    }
