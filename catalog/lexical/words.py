"""Texts to words, the same on every database, in documents and in queries.

A word is a run of letters, digits and marks, without case (Unicode casefolding) and without the accents
of Latin, Greek and Cyrillic letters. Neither engine sees anything else of a text, so nothing in it can be
taken for an operator. There is no stemming: a catalog's language is not known.

What is written together with punctuation inside is also found written in one: "T-shirt" is `t`, `shirt`
and `tshirt`. Chinese, Japanese and Korean have no reliable spaces: their runs become overlapping pairs of
characters, as in Lucene's CJKBigramFilter, and in documents single characters as well.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby, pairwise

MAX_WORD_CHARS = 64
"""Longer words are cut; PostgreSQL refuses words beyond 2,046 bytes."""
_ACCENTS = re.compile("[\u0300-\u036f]+")
_CJK = re.compile(
    "([\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]+)"
)


def document_words(text: str) -> list[str]:
    """List the words that a text is found by, in its order."""
    return [word for chunk in _chunks(text) for word in [*_separate(chunk, True), *_joined(chunk)]]


def query_words(text: str) -> list[str]:
    """List the distinct words of a query in its order: a text that holds all of them holds what was asked."""
    return list(dict.fromkeys(word for chunk in _chunks(text) for word in _separate(chunk, False)))


def joined_words(text: str) -> list[str]:
    """List what the query writes with punctuation inside, in one: other ways to ask for the same."""
    return list(dict.fromkeys(word for chunk in _chunks(text) for word in _joined(chunk)))


def _chunks(text: str) -> Iterator[list[str]]:
    """Cut at spaces, then at all else that is no letter, digit or mark."""
    for chunk in _folded(text).split():
        yield ["".join(run) for is_word, run in groupby(chunk, key=_in_word) if is_word]


def _separate(chunk: Sequence[str], single_characters: bool) -> Iterator[str]:
    for run in chunk:
        for piece in filter(None, _CJK.split(run)):
            yield from _pairs(piece, single_characters) if _CJK.match(piece) else [piece[:MAX_WORD_CHARS]]


def _joined(chunk: Sequence[str]) -> Iterator[str]:
    joined = "".join(chunk)
    if len(chunk) > 1 and len(joined) <= MAX_WORD_CHARS and not _CJK.search(joined):
        yield joined


def _pairs(run: str, single_characters: bool) -> Iterator[str]:
    if single_characters or len(run) == 1:
        yield from run
    yield from (first + second for first, second in pairwise(run))


def _folded(text: str) -> str:
    # Compatibility forms first (full-width letters, ligatures), then the accents go, then the rest that was
    # decomposed is put together again: Korean syllables and Japanese voiced kana are letters of their own.
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return unicodedata.normalize("NFC", _ACCENTS.sub("", decomposed))


@lru_cache(maxsize=4096)
def _in_word(character: str) -> bool:
    # Marks are a part of the word in the scripts of India and in Arabic, Hebrew and Thai.
    return character.isalnum() or unicodedata.category(character).startswith("M")
