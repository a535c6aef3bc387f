"""Lexical search in SQL."""

from collections.abc import Sequence
from itertools import islice

from sqlalchemy import Engine, Select, and_, select

from catalog.lexical.engines import rank_documents
from catalog.lexical.words import joined_words, query_words
from catalog.tables import DocumentRow, ImageRow, ProductRow
from catalog.transactions import reading
from core.errors import InvalidInput
from core.filters import Filter, matches
from core.types import Hit

MAX_QUERY_WORDS = 64
"""Further words of a query are not looked at: each costs a walk over all documents that hold it."""
_ROWS_A_FETCH = 500


class SqlLexicalIndex:
    """Implements `core.ports.LexicalIndex`; every method may raise Unavailable."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def search(
        self,
        words: str,
        limit: int,
        filter: Filter | None = None,
        exclude_products: Sequence[str] = (),
        every_word: bool = True,
    ) -> list[Hit]:
        """Find the `limit` products that fit the words best, each by its first picture.

        Raises:
            InvalidInput: the limit is not positive.
        """
        if limit < 1:
            raise InvalidInput(f"the limit {limit} is not positive").at("limit")
        wanted = query_words(words)
        if not every_word:
            wanted += joined_words(words)
        if not wanted:
            return []
        excluded = set(exclude_products)
        statement = self._ranked(wanted[:MAX_QUERY_WORDS], every_word)
        if filter is None:
            statement = statement.limit(limit + len(excluded))
        # The filter's meaning in Python is its meaning; rows come as they are taken, so that the page is
        # full or the documents are at their end.
        options = {"yield_per": _ROWS_A_FETCH}
        with (
            reading(self._engine) as connection,
            connection.execute(statement, execution_options=options) as rows,
        ):
            hits = (
                Hit(row.id, row.revision, row.product_id, row.score)
                for row in rows
                if row.product_id not in excluded and (filter is None or matches(filter, row.attributes))
            )
            return list(islice(hits, limit))

    def _ranked(
        self, words: Sequence[str], every_word: bool
    ) -> Select[tuple[str, int, str, dict[str, object], float]]:
        ranking = rank_documents(self._engine.dialect.name, words, every_word)
        score = ranking.score.label("score")
        return (
            select(ImageRow.id, ImageRow.revision, ImageRow.product_id, ProductRow.attributes, score)
            .select_from(ranking.documents)
            .join(ProductRow, ProductRow.id == DocumentRow.product_id)
            .join(ImageRow, and_(ImageRow.product_id == ProductRow.id, ImageRow.position == 0))
            .where(ranking.matches)
            .order_by(score.desc(), ProductRow.id)
        )
