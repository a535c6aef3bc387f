"""How far a collection has come, and since when it lags behind, in one query."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, and_, case, func, select

from catalog.clock import utc_now
from catalog.ledger_rows import of_current_revision
from catalog.tables import EmbeddingRow, ImageRow
from catalog.transactions import reading
from catalog.versioning import seconds_since
from core.types import LedgerCounts


@dataclass(frozen=True, slots=True)
class IndexProgress:
    """The counts of a collection; `age_s`: how long the picture missing longest has waited, 0 for none."""

    counts: LedgerCounts
    age_s: float


class SqlIndexProgress:
    """Reads every picture's line of the ledger, so it costs as much as `counts`; may raise Unavailable."""

    def __init__(self, engine: Engine, clock: Callable[[], datetime] = utc_now) -> None:
        self._engine = engine
        self._clock = clock

    def of(self, collection: str) -> IndexProgress:
        """Count one collection and find the oldest revision that it lacks."""
        lacking = and_(EmbeddingRow.embedded_at.is_(None), EmbeddingRow.error.is_(None))
        statement = (
            select(
                func.count(ImageRow.id),
                func.count(EmbeddingRow.embedded_at),
                func.count(EmbeddingRow.error),
                func.min(case((lacking, ImageRow.revision))),
            )
            .select_from(ImageRow)
            .outerjoin(EmbeddingRow, of_current_revision(collection))
        )
        with reading(self._engine) as connection:
            pictures, indexed, failed, oldest = connection.execute(statement).one()
        counts = LedgerCounts(pictures, indexed, failed, missing=pictures - indexed - failed)
        return IndexProgress(counts, 0.0 if oldest is None else seconds_since(oldest, self._clock()))
