"""Which versions of a model there were: how each is configured, which took turns, which may be forgotten."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, delete, select, update

from catalog.clock import utc_now
from catalog.ledger_rows import locked
from catalog.model_versions import read_chosen, read_retired
from catalog.tables import EmbeddingRow, ModelVersionRow
from catalog.transactions import reading, writing
from core.types import EncoderInfo


class SqlVersions:
    """The history of registered model versions; every method may raise Unavailable.

    Which version is live is not told here: that is what the alias in Milvus points at.
    """

    def __init__(self, engine: Engine, clock: Callable[[], datetime] = utc_now) -> None:
        self._engine = engine
        self._clock = clock

    def settings(self, collection: str) -> dict[str, Any] | None:
        """Those fields of an encoder's configuration that make it this version; None when not known."""
        with reading(self._engine) as connection:
            found: dict[str, Any] | None = connection.scalar(
                select(ModelVersionRow.settings).where(ModelVersionRow.collection == collection)
            )
        return found

    def keep_settings(self, collection: str, settings: Mapping[str, Any]) -> None:
        """Remember how a registered version is configured, so that it can come back."""
        self._change(collection, settings=dict(settings))

    def choose(self, collection: str) -> None:
        """Record that this registered version begins to take over."""
        self._change(collection, promoted_at=self._clock())

    def retire(self, collection: str) -> None:
        """Record that another version takes over from this one."""
        self._change(collection, retired_at=self._clock())

    def retired(self, model: str) -> list[EncoderInfo]:
        """List the versions of a model that another has taken over from, the latest first."""
        with reading(self._engine) as connection:
            return read_retired(connection, model)

    def chosen(self, model: str, since: datetime) -> EncoderInfo | None:
        """Read the version that was last chosen to take over, if that was not before `since`."""
        with reading(self._engine) as connection:
            return read_chosen(connection, model, since)

    def forget(self, collection: str) -> None:
        """Drop a version and its ledger rows, after its collection was dropped."""
        with writing(self._engine) as connection:
            connection.execute(delete(EmbeddingRow).where(locked(EmbeddingRow.collection == collection)))
            connection.execute(delete(ModelVersionRow).where(ModelVersionRow.collection == collection))

    def _change(self, collection: str, **values: Any) -> None:
        with writing(self._engine) as connection:
            connection.execute(
                update(ModelVersionRow).where(ModelVersionRow.collection == collection).values(**values)
            )
