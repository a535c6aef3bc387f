"""The register of model versions, inside a transaction that the caller holds."""

from dataclasses import asdict
from datetime import datetime

from sqlalchemy import Connection, select

from catalog.dialects import insert_or_replace
from catalog.tables import ModelVersionRow
from core.types import EncoderInfo


def write_version(connection: Connection, info: EncoderInfo, now: datetime) -> None:
    """Add the version, or renew what is known of it; it keeps the time of its first registration."""
    values = asdict(info) | {"modalities": list(info.modalities)}
    statement = insert_or_replace(connection, ModelVersionRow.metadata.tables[ModelVersionRow.__tablename__])
    connection.execute(
        statement.values(collection=info.collection, created_at=now, **values).on_conflict_do_update(
            index_elements=["collection"], set_=values
        )
    )


def read_versions(connection: Connection) -> list[EncoderInfo]:
    """Read all versions, oldest first."""
    rows = connection.execute(
        select(
            ModelVersionRow.name,
            ModelVersionRow.family,
            ModelVersionRow.checkpoint,
            ModelVersionRow.fingerprint,
            ModelVersionRow.dimension,
            ModelVersionRow.modalities,
            ModelVersionRow.precision,
            ModelVersionRow.device,
        ).order_by(ModelVersionRow.created_at, ModelVersionRow.collection)
    )
    return [
        EncoderInfo(
            name=row.name,
            family=row.family,
            checkpoint=row.checkpoint,
            fingerprint=row.fingerprint,
            dimension=row.dimension,
            modalities=tuple(row.modalities),
            precision=row.precision,
            device=row.device,
        )
        for row in rows
    ]
