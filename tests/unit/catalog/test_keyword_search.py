"""Words of texts for keyword search."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from catalog.keyword_search import MAX_WORD_CHARS, document_words, joined_words, query_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Red dress, by MARLOW!", ["red", "dress", "by", "marlow"]),
        ("Straße à Ångström", ["strasse", "a", "angstrom"]),
        ("red red Red", ["red"]),
        ("红色连衣裙", ["红色", "色连", "连衣", "衣裙"]),
        ("裙 iPhone壳", ["裙", "iphone", "壳"]),
        ("ガラス 한국", ["ガラ", "ラス", "한국"]),
        ("ﾀﾞ ²", ["ダ", "2"]),
        ("कपड़े किताब", ["कपड़े", "किताब"]),
        ("\0 \"'()*:^- \ud800 🧥", []),
    ],
)
def test_a_query_is_cut_into_words(text: str, words: list[str]) -> None:
    assert query_words(text) == words


def test_documents_also_hold_single_characters_and_what_is_written_in_one() -> None:
    assert document_words("T-shirt 连衣") == ["t", "shirt", "tshirt", "连", "衣", "连衣"]
    assert joined_words("T-shirt AB-12/x red 连-衣") == ["tshirt", "ab12x"]
    assert document_words("a-" * 100) == ["a"] * 100


@pytest.mark.slow
@given(st.text(max_size=300))
@example("İ")
@example("\u0345")
@example("ß-ẞ")
def test_a_text_holds_every_word_of_a_query_for_it(text: str) -> None:
    held = set(document_words(text))
    assert held >= set(query_words(text)) | set(joined_words(text))


@given(st.text(max_size=300))
def test_words_hold_nothing_that_an_engine_could_take_for_syntax(text: str) -> None:
    for word in document_words(text):
        assert 1 <= len(word) <= MAX_WORD_CHARS
        assert not set(word) & set(" \"'\\()*:^-+&|!<>{}[]@~_\0\n")
