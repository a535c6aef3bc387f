"""API keys in SQL: made, listed, revoked. A row is never deleted, so the history of access stays."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Connection, func, insert, select, update

from catalog.database import SqlPart, take_turns, writing
from catalog.tables import ApiKeyRow
from core.api_keys import ApiKey
from core.errors import Conflict, NotFound

_LOCK = (0x7669, 0x6B65)
"""PostgreSQL's advisory lock under which keys change, so that two revocations cannot end both last admin keys."""


class SqlApiKeys(SqlPart):
    """The register of keys."""

    def add(self, key: ApiKey, other_admin: bool) -> None:
        """Store a new key; `other_admin`: there is an admin key outside of the table.

        Raises:
            Conflict: there would be keys and no admin key.
        """
        with writing(self._engine) as connection:
            take_turns(connection, _LOCK)
            values = {name: getattr(key, name) for name in ApiKeyRow.__table__.columns.keys()}  # noqa: SIM118
            connection.execute(insert(ApiKeyRow).values(values | {"scopes": list(key.scopes)}))
            if not other_admin and not _has_admin(connection):
                raise Conflict("the first key must have the scope admin, or nobody could make another")

    def revoke(self, key_id: str, other_admin: bool) -> None:
        """Revoke a key for good; nothing happens when it is revoked already.

        Raises:
            NotFound: there is no such key.
            Conflict: it is the last admin key, and there is no `other_admin` outside of the table.
        """
        # PostgreSQL refuses NUL, even in a condition.
        if "\0" in key_id:
            raise NotFound("there is no such key")
        with writing(self._engine) as connection:
            take_turns(connection, _LOCK)
            ended = func.coalesce(ApiKeyRow.revoked_at, self._clock())
            done = connection.execute(
                update(ApiKeyRow).where(ApiKeyRow.key_id == key_id).values(revoked_at=ended)
            )
            if done.rowcount == 0:
                raise NotFound(f"there is no key {key_id!r}")
            if not other_admin and not _has_admin(connection):
                raise Conflict("this is the last admin key; make another one before you revoke it")

    def all(self) -> list[ApiKey]:
        """List all keys, revoked ones too, oldest first."""
        keys = select(*ApiKeyRow.__table__.columns).order_by(ApiKeyRow.created_at, ApiKeyRow.key_id)
        return [ApiKey(**{**row._mapping, "scopes": tuple(row.scopes)}) for row in self._read(keys)]

    def used(self, times: Mapping[str, datetime]) -> None:
        """Record when keys were last used, by key id."""
        with writing(self._engine) as connection:
            for key_id, time in times.items():
                connection.execute(
                    update(ApiKeyRow).where(ApiKeyRow.key_id == key_id).values(last_used_at=time)
                )


def _has_admin(connection: Connection) -> bool:
    active = connection.execute(select(ApiKeyRow.scopes).where(ApiKeyRow.revoked_at.is_(None)))
    return any("admin" in row.scopes for row in active)
