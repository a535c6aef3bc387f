"""How each database ranks documents: SQLite FTS5 by bm25, PostgreSQL by ts_rank. The one place of both."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Float, FromClause, column, func, literal_column, table
from sqlalchemy.dialects.postgresql import TSQUERY, TSVECTOR

from catalog.tables import DocumentRow

_LENGTH_COUNTS = 1
"""PostgreSQL: divide the rank by 1 + the logarithm of the document's length, as bm25 does in its way."""
_BM25_WEIGHTS = (1.0, 1.0, 0.4, 0.2, 0.1)
"""Of identifier, title, attributes, description and captions: those that PostgreSQL gives to A, A, B, C, D."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """The documents that match, and how well each fits; higher is better."""

    documents: FromClause
    matches: ColumnElement[bool]
    score: ColumnElement[float]


def is_declared(name: str | None, *_: object) -> bool:
    """Tell whether `catalog.tables` speaks of what has this name; SQLAlchemy has no words for the indexes."""
    return name is None or not name.startswith("fulltext")


def rank_documents(dialect: str, words: Sequence[str], every_word: bool) -> Ranking:
    """Rank documents that hold one or every one of these words, cut by `catalog.lexical.words`.

    Both engines read the same query: words in double quotes, alone or with OR between them.
    """
    query = (" " if every_word else " OR ").join(f'"{word}"' for word in words)
    return _ts_rank(query) if dialect == "postgresql" else _bm25(query)


def _ts_rank(query: str) -> Ranking:
    fulltext: ColumnElement[Any] = literal_column("documents.fulltext", TSVECTOR())
    # Not ts_rank_cd: among words with OR it counts occurrences, so one word said often beats two words.
    # `simple` knows no stems and no stop words: the catalog's language is not known.
    wanted = func.websearch_to_tsquery(literal_column("'simple'::regconfig"), query, type_=TSQUERY())
    score = func.ts_rank(fulltext, wanted, _LENGTH_COUNTS, type_=Float())
    return Ranking(DocumentRow.__table__, fulltext.bool_op("@@")(wanted), score)


def _bm25(query: str) -> Ranking:
    fulltext = table("fulltext", column("rowid"))
    documents = DocumentRow.__table__
    name: ColumnElement[Any] = literal_column("fulltext")
    # FTS5 gives better documents lower values.
    score = -func.bm25(name, *_BM25_WEIGHTS, type_=Float())
    joined = fulltext.join(documents, documents.c.id == fulltext.c.rowid)
    return Ranking(joined, name.bool_op("MATCH")(query), score)
