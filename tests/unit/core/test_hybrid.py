"""Vectors and keywords together: shares, which of the two stands in, and what the answer says."""

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest

from core.ensemble import HybridSearch
from core.errors import DeadlineExceeded, InvalidInput, ModelUnavailable, UnsupportedModality, VitrineError
from core.filters import AnyOf
from core.fusion import fusion_depth
from core.search import QueryPart, SearchQuery, SearchResult, StoredPart
from core.types import Hit

TEXT = SearchQuery((QueryPart("red dress"),), limit=10)
BOTH = SearchQuery((QueryPart(b"image"), QueryPart("in green")), limit=10)


class Lexicon:
    """A keyword index that finds these products: those that hold every word, and those that hold any."""

    def __init__(self, every: str = "", some: str = "", error: VitrineError | None = None) -> None:
        self.every, self.some, self.error = every, some, error
        self.delay_s = 0.0
        self.asked: list[tuple[object, ...]] = []

    def search(self, *asked: Any, **_: Any) -> list[Hit]:
        """Take what the port takes, in its order."""
        text, limit, filter, exclude_products, every_word, _timeout_s = asked
        self.asked.append((text, limit, filter, exclude_products, every_word))
        time.sleep(self.delay_s)
        if self.error is not None:
            raise self.error
        return [Hit(f"first-{p}", 1, p, 9.0) for p in (self.every if every_word else self.some)][:limit]


def search(
    lexicon: Lexicon,
    vectors: str | VitrineError,
    weight: float = 0.5,
    query: SearchQuery = TEXT,
    deadline_s: float = 30.0,
) -> SearchResult:
    async def by_vectors(deep: SearchQuery) -> SearchResult:
        if isinstance(vectors, VitrineError):
            raise vectors
        hits = [Hit(f"near-{p}", 1, p, 0.5) for p in vectors][: deep.limit]
        return SearchResult(hits, weights={"m": 1.0}, timings_ms={"fuse": 1.0})

    hybrid = HybridSearch(by_vectors, lexicon, deadline_s)
    return asyncio.run(hybrid.search(replace(query, keyword_weight=weight)))


def order(result: SearchResult) -> str:
    return "".join(hit.product_id for hit in result.hits)


def test_a_product_that_both_name_comes_first_and_the_weight_decides_the_rest() -> None:
    assert order(search(Lexicon("cx"), "abc"))[0] == "c"
    assert order(search(Lexicon("x"), "ab", weight=0.7)) == "xab"
    assert order(search(Lexicon("x"), "ab", weight=0.3)) == "abx"


def test_the_image_shown_is_the_one_that_was_nearest() -> None:
    hits = {hit.product_id: hit for hit in search(Lexicon("cx"), "abc").hits}
    assert (hits["c"].image_id, hits["x"].image_id) == ("near-c", "first-x")


def test_the_answer_says_what_took_part() -> None:
    result = search(Lexicon("a"), "a", weight=0.3)
    assert (result.keyword_weight, result.weights, result.degraded) == (0.3, {"m": 1.0}, False)
    assert set(result.timings_ms) == {"fuse", "keyword"}


def test_beside_vectors_a_product_must_hold_every_word() -> None:
    lexicon = Lexicon(every="", some="xyz")
    assert order(search(lexicon, "ab")) == "ab"
    assert [asked[-1] for asked in lexicon.asked] == [True]


def test_keywords_alone_take_any_word_and_ask_no_model() -> None:
    result = search(Lexicon(some="xyz"), ModelUnavailable("asked in vain"), weight=1)
    assert (order(result), result.keyword_weight, result.degraded, result.skipped) == ("xyz", 1.0, False, {})


def test_keywords_answer_alone_when_no_model_can_and_say_so() -> None:
    away = search(Lexicon(every="x", some="xyz"), ModelUnavailable("all are away"))
    assert (order(away), away.keyword_weight, away.degraded) == ("xyz", 1.0, True)
    assert away.skipped == {"ensemble": "all are away"}
    blind = search(Lexicon(some="xyz"), UnsupportedModality("only images"))
    assert (order(blind), blind.degraded, blind.skipped) == ("xyz", False, {"ensemble": "only images"})


def test_keywords_stand_in_neither_for_an_image_nor_for_a_mistake() -> None:
    with pytest.raises(ModelUnavailable):
        search(Lexicon("x", "x"), ModelUnavailable("away"), query=BOTH)
    with pytest.raises(InvalidInput):
        search(Lexicon("x", "x"), InvalidInput("the weights cancel out"))


def test_when_neither_answers_the_models_say_why() -> None:
    with pytest.raises(ModelUnavailable, match="away"):
        search(Lexicon(error=DeadlineExceeded("no database")), ModelUnavailable("away"))


def test_vectors_answer_alone_when_the_keyword_search_fails_or_is_late() -> None:
    failing = search(Lexicon(error=ModelUnavailable("no database")), "ab")
    assert (order(failing), failing.degraded, failing.keyword_weight) == ("ab", True, 0.0)
    assert failing.skipped == {"keyword": "no database"}
    late = Lexicon("x")
    late.delay_s = 1
    assert "0.1 s" in search(late, "ab", deadline_s=0.1).skipped["keyword"]


def test_only_text_of_positive_weight_is_looked_up_under_the_same_filter() -> None:
    filter = AnyOf("color", ("red",))
    parts = (QueryPart("a dress"), QueryPart("red", -0.5), QueryPart(b"image"), QueryPart("long", 2))
    lexicon = Lexicon()
    search(lexicon, "a", query=SearchQuery(parts, 10, filter, ("p",)))
    assert lexicon.asked == [("a dress long", fusion_depth(10) // 2, filter, ("p",), True)]


def test_a_query_is_text_only_with_text_of_positive_weight_and_nothing_else() -> None:
    stored = StoredPart("product 'p'", "p", ("k",))
    assert SearchQuery((QueryPart("a"), QueryPart("b", -1))).is_text_only
    assert not SearchQuery((QueryPart("a", -1),)).is_text_only
    assert not SearchQuery((QueryPart("a"), QueryPart(stored))).is_text_only
    assert not SearchQuery(()).is_text_only
    assert SearchQuery((QueryPart("a", 0), QueryPart(b"b"))).text == ""


@pytest.mark.parametrize("limit", [1, 16, 32, 33, 500])
def test_the_lists_are_long_enough_for_the_page(limit: int) -> None:
    products = "".join(chr(0x4E00 + number) for number in range(2_000))
    result = search(Lexicon(products), products, query=SearchQuery((QueryPart("a"),), limit))
    assert order(result) == products[:limit]
