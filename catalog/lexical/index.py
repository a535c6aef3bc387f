"""Lexical search in SQL."""

from collections.abc import Sequence

from sqlalchemy import Engine, Select, and_, select

from catalog.filters import compile_filter
from catalog.lexical.engines import rank_documents
from catalog.lexical.words import joined_words, query_words
from catalog.tables import DocumentRow, ImageRow, ProductRow
from catalog.transactions import reading
from core.errors import InvalidInput
from core.filters import Filter
from core.types import Hit

MAX_QUERY_WORDS = 64
"""Further words of a query are not looked at: each costs a walk over all documents that hold it."""


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
        timeout_s: float | None = None,
    ) -> list[Hit]:
        """Find the `limit` products that fit the words best, each by its first picture.

        Raises:
            InvalidInput: the limit is not positive.
            DeadlineExceeded: it took longer than `timeout_s`; the database has stopped then.
        """
        if limit < 1:
            raise InvalidInput(f"the limit {limit} is not positive").at("limit")
        wanted = query_words(words)
        if not every_word:
            wanted += joined_words(words)
        if not wanted:
            return []
        excluded = set(exclude_products)
        # As many more as may have to go: a list of any length in SQL costs more than these rows.
        statement = self._ranked(wanted[:MAX_QUERY_WORDS], every_word).limit(limit + len(excluded))
        if filter is not None:
            statement = statement.where(compile_filter(filter, self._engine.dialect.name))
        with reading(self._engine, timeout_s) as connection:
            if filter is not None:
                # Not kept compiled: filters have no end of shapes, and the largest take two megabytes each.
                connection.execution_options(compiled_cache=None)
            rows = connection.execute(statement).all()
        hits = [Hit(row.id, row.revision, row.product_id, row.score) for row in rows]
        return [hit for hit in hits if hit.product_id not in excluded][:limit]

    def _ranked(self, words: Sequence[str], every_word: bool) -> Select[str, int, str, float]:
        ranking = rank_documents(self._engine.dialect.name, words, every_word)
        score = ranking.score.label("score")
        return (
            select(ImageRow.id, ImageRow.revision, ImageRow.product_id, score)
            .select_from(ranking.documents)
            .join(ProductRow, ProductRow.id == DocumentRow.product_id)
            .join(ImageRow, and_(ImageRow.product_id == ProductRow.id, ImageRow.position == 0))
            .where(ranking.matches)
            .order_by(score.desc(), ProductRow.id)
        )
