"""Keyword search by the full text of SQLite and PostgreSQL, with filters compiled to SQL.

A word is a run of letters, digits and marks. Case is folded (Unicode casefolding), and Latin, Greek and
Cyrillic letters lose their accents. The engines see nothing else of a text, so no character acts as an
operator. Words are not stemmed: a catalog's language is not known.

A run with punctuation inside is also found without it: "T-shirt" is `t`, `shirt` and `tshirt`. Chinese,
Japanese and Korean have no reliable spaces. Their runs become overlapping pairs of characters, as in Lucene's
CJKBigramFilter; documents also hold the single characters.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby, pairwise
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    FromClause,
    Select,
    and_,
    column,
    func,
    literal_column,
    select,
    table,
)
from sqlalchemy.dialects.postgresql import TSQUERY, TSVECTOR

from catalog.database import SqlPart, batched_rows, reading, upsert
from catalog.filters import compile_filter
from catalog.tables import CaptionRow, DocumentRow, ImageRow, ProductRow
from core.errors import InvalidInput
from core.filters import Filter
from core.types import Attributes, Hit

MAX_WORD_CHARS = 64
"""Longer words are cut; PostgreSQL refuses words beyond 2,046 bytes."""
_ACCENTS = re.compile("[\u0300-\u036f]+")
_CJK = re.compile(
    "([\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]+)"
)
FIELDS = ("identifier", "title", "attributes", "description", "captions")
"""The columns that are searched."""
_MAX_FIELD_CHARS = 50_000
"""Keeps all fields together below PostgreSQL's limit of one mebibyte, even when no word repeats."""
_LENGTH_COUNTS = 1
"""PostgreSQL's flag that divides the rank by 1 + log(document length); bm25 has its own such term."""
_BM25_WEIGHTS = (1.0, 1.0, 0.4, 0.2, 0.1)
"""Weights of `FIELDS`, equal to those that PostgreSQL gives to A, A, B, C and D."""
MAX_QUERY_WORDS = 64
"""Further words of a query are ignored: each costs a walk over all documents that hold it."""


def document_words(text: str) -> list[str]:
    """List the words that a text is found by, in its order."""
    return [word for group in _word_groups(text) for word in [*_separate(group, True), *_joined(group)]]


def query_words(text: str) -> list[str]:
    """List the distinct words of a query, in its order; a document that holds them all matches."""
    return list(dict.fromkeys(word for group in _word_groups(text) for word in _separate(group, False)))


def joined_words(text: str) -> list[str]:
    """List the query's runs with punctuation inside, joined to one word each."""
    return list(dict.fromkeys(word for group in _word_groups(text) for word in _joined(group)))


def _word_groups(text: str) -> Iterator[list[str]]:
    """Cut at spaces, then at everything that is no letter, digit or mark."""
    for group in _folded(text).split():
        yield ["".join(run) for is_word, run in groupby(group, key=_is_word_character) if is_word]


def _separate(group: Sequence[str], single_characters: bool) -> Iterator[str]:
    for run in group:
        for piece in filter(None, _CJK.split(run)):
            yield from _pairs(piece, single_characters) if _CJK.match(piece) else [piece[:MAX_WORD_CHARS]]


def _joined(group: Sequence[str]) -> Iterator[str]:
    joined = "".join(group)
    if len(group) > 1 and len(joined) <= MAX_WORD_CHARS and not _CJK.search(joined):
        yield joined


def _pairs(run: str, single_characters: bool) -> Iterator[str]:
    if single_characters or len(run) == 1:
        yield from run
    yield from (first + second for first, second in pairwise(run))


def _folded(text: str) -> str:
    # NFKD resolves compatibility forms (full-width letters, ligatures). After the accents are removed, NFC
    # restores Korean syllables and Japanese voiced kana, which are letters of their own.
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return unicodedata.normalize("NFC", _ACCENTS.sub("", decomposed))


@lru_cache(maxsize=4096)
def _is_word_character(character: str) -> bool:
    # Marks belong to the word in the scripts of India, and in Arabic, Hebrew and Thai.
    return character.isalnum() or unicodedata.category(character).startswith("M")


def write_documents(connection: Connection, product_ids: Sequence[str]) -> None:
    """Write the documents of these products as the transaction sees them; a deleted product's go with it.

    The caller holds the locks of the products, or of the database.
    """
    for some in batched_rows(product_ids):
        captions = _captions_of(connection, some)
        products = select(
            ProductRow.id, ProductRow.title, ProductRow.description, ProductRow.attributes
        ).where(ProductRow.id.in_(some))
        rows = [
            {"product_id": row.id}
            | _document_fields(row.id, row.title, row.attributes, row.description, captions.get(row.id, []))
            for row in connection.execute(products)
        ]
        upsert(connection, DocumentRow, rows, FIELDS, key=["product_id"])


def _document_fields(
    product_id: str, title: str, attributes: Attributes, description: str, captions: Sequence[str]
) -> dict[str, str]:
    texts = (product_id, title, "\n".join(_strings(attributes)), description, "\n".join(captions))
    return {
        field: " ".join(document_words(text))[:_MAX_FIELD_CHARS]
        for field, text in zip(FIELDS, texts, strict=True)
    }


def _strings(attributes: Attributes) -> list[str]:
    """List the values that are texts; numbers and names of attributes would match by accident."""
    found: list[str] = []
    for value in attributes.values():
        found += [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, str)]
    return found


def _captions_of(connection: Connection, product_ids: Sequence[str]) -> Mapping[str, list[str]]:
    captions: dict[str, list[str]] = defaultdict(list)
    rows = (
        select(ImageRow.product_id, CaptionRow.caption)
        .join(CaptionRow, CaptionRow.image_id == ImageRow.id)
        .where(ImageRow.product_id.in_(product_ids), CaptionRow.caption.is_not(None))
        .order_by(ImageRow.product_id, ImageRow.position, CaptionRow.model)
    )
    for row in connection.execute(rows):
        captions[row.product_id].append(row.caption)
    return captions


Ranking = tuple[FromClause, ColumnElement[bool], ColumnElement[float]]
"""Documents, the condition that they match, and how well each fits; higher is better."""


def _ts_rank(query: str) -> Ranking:
    fulltext: ColumnElement[Any] = literal_column("documents.fulltext", TSVECTOR())
    # Not ts_rank_cd: with OR it counts occurrences, so one frequent word beats two different ones.
    # `simple` has no stems and no stop words: the catalog's language is not known.
    wanted = func.websearch_to_tsquery(literal_column("'simple'::regconfig"), query, type_=TSQUERY())
    score = func.ts_rank(fulltext, wanted, _LENGTH_COUNTS, type_=Float())
    return DocumentRow.__table__, fulltext.bool_op("@@")(wanted), score


def _bm25(query: str) -> Ranking:
    fulltext = table("fulltext", column("rowid"))
    documents = DocumentRow.__table__
    name: ColumnElement[Any] = literal_column("fulltext")
    # FTS5 gives better documents lower values.
    score = -func.bm25(name, *_BM25_WEIGHTS, type_=Float())
    joined = fulltext.join(documents, documents.c.id == fulltext.c.rowid)
    return joined, name.bool_op("MATCH")(query), score


class SqlKeywordIndex(SqlPart):
    """Implements `core.ports.KeywordIndex`."""

    def search(
        self,
        text: str,
        limit: int,
        filter: Filter | None = None,
        exclude_products: Sequence[str] = (),
        every_word: bool = True,
        timeout_s: float | None = None,
    ) -> list[Hit]:
        """Find the `limit` products that fit the text best, each by its first image.

        Raises:
            InvalidInput: the limit is not positive.
            DeadlineExceeded: it took longer than `timeout_s`; the database has stopped then.
        """
        if limit < 1:
            raise InvalidInput(f"the limit {limit} is not positive").at("limit")
        wanted = query_words(text)
        if not every_word:
            wanted += joined_words(text)
        if not wanted:
            return []
        excluded = set(exclude_products)
        # Excluded products are dropped here: a long list in SQL costs more than these extra rows.
        statement = self._ranked(wanted[:MAX_QUERY_WORDS], every_word).limit(limit + len(excluded))
        if filter is not None:
            statement = statement.where(compile_filter(filter, self._engine.dialect.name))
        with reading(self._engine, timeout_s) as connection:
            if filter is not None:
                # Not cached: filters have any number of shapes, and the largest take two megabytes compiled.
                connection.execution_options(compiled_cache=None)
            rows = connection.execute(statement).all()
        hits = [Hit(row.id, row.revision, row.product_id, row.score) for row in rows]
        return [hit for hit in hits if hit.product_id not in excluded][:limit]

    def _ranked(self, words: Sequence[str], every_word: bool) -> Select[str, int, str, float]:
        # Both engines read the same query: words in double quotes, with spaces or OR between them.
        query = (" " if every_word else " OR ").join(f'"{word}"' for word in words)
        rank = _ts_rank if self._engine.dialect.name == "postgresql" else _bm25
        documents, matches, score = rank(query)
        return (
            select(ImageRow.id, ImageRow.revision, ImageRow.product_id, score.label("score"))
            .select_from(documents)
            .join(ProductRow, ProductRow.id == DocumentRow.product_id)
            .join(ImageRow, and_(ImageRow.product_id == ProductRow.id, ImageRow.position == 0))
            .where(matches)
            .order_by(score.label("score").desc(), ProductRow.id)
        )
