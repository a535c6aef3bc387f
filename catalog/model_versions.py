"""The register of model versions, inside a transaction that the caller holds."""

from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, select

from catalog.dialects import insert_or_replace
from catalog.tables import ModelVersionRow
from core.types import EncoderInfo


def write_version(connection: Connection, info: EncoderInfo, now: datetime) -> None:
    """Add the version, or renew what is known of it; it keeps the time of its first registration."""
    values = asdict(info) | {"modalities": list(info.modalities)}
    del values["captions"]
    statement = insert_or_replace(connection, ModelVersionRow.metadata.tables[ModelVersionRow.__tablename__])
    connection.execute(
        statement.values(collection=info.collection, created_at=now, **values).on_conflict_do_update(
            index_elements=["collection"], set_=values
        )
    )


_INFO = select(
    ModelVersionRow.name,
    ModelVersionRow.family,
    ModelVersionRow.checkpoint,
    ModelVersionRow.fingerprint,
    ModelVersionRow.dimension,
    ModelVersionRow.modalities,
    ModelVersionRow.precision,
    ModelVersionRow.device,
)


def read_versions(connection: Connection) -> list[EncoderInfo]:
    """Read all versions, oldest first."""
    rows = connection.execute(_INFO.order_by(ModelVersionRow.created_at, ModelVersionRow.collection))
    return [_info(row) for row in rows]


def read_retired(connection: Connection, model: str) -> list[EncoderInfo]:
    """Read the versions of a model that another has taken over from, the latest first."""
    retired = _INFO.where(ModelVersionRow.name == model, ModelVersionRow.retired_at.is_not(None))
    rows = connection.execute(retired.order_by(ModelVersionRow.retired_at.desc(), ModelVersionRow.collection))
    return [_info(row) for row in rows]


def read_chosen(connection: Connection, model: str, since: datetime) -> EncoderInfo | None:
    """Read the version of a model that was last chosen to take over, if that was not before `since`."""
    chosen = _INFO.where(ModelVersionRow.name == model, ModelVersionRow.promoted_at >= since)
    row = connection.execute(chosen.order_by(ModelVersionRow.promoted_at.desc()).limit(1)).first()
    return None if row is None else _info(row)


def _info(row: Row[*tuple[Any, ...]]) -> EncoderInfo:
    return EncoderInfo(
        name=row.name,
        family=row.family,
        checkpoint=row.checkpoint,
        fingerprint=row.fingerprint,
        dimension=row.dimension,
        modalities=tuple(row.modalities),
        precision=row.precision,
        device=row.device,
    )
