"""Pictures that a model could not take, in SQL: which, and why."""

from dataclasses import dataclass

from sqlalchemy import Engine, select

from catalog.ledger_rows import of_current_revision
from catalog.tables import EmbeddingRow, ImageRow
from catalog.transactions import reading


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A picture that is not in a collection because its embedding failed."""

    image_id: str
    product_id: str
    revision: int
    error: str


class SqlQuarantine:
    """What the ledger has put into quarantine; may raise Unavailable."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def page(self, collection: str, limit: int) -> list[Quarantined]:
        """Read up to `limit` pictures whose current revision has failed, oldest revision first."""
        statement = (
            select(ImageRow.id, ImageRow.product_id, ImageRow.revision, EmbeddingRow.error)
            .join(EmbeddingRow, of_current_revision(collection))
            .where(EmbeddingRow.error.is_not(None))
            .order_by(ImageRow.revision, ImageRow.id)
            .limit(limit)
        )
        with reading(self._engine) as connection:
            return [
                Quarantined(image_id, product_id, revision, str(error))
                for image_id, product_id, revision, error in connection.execute(statement)
            ]
