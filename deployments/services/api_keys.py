"""API keys of the gateway: those of the database, cached, and the admin key of the configuration."""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from catalog.api_keys import SqlApiKeys
from catalog.database import utc_now
from core.api_keys import ApiKey, Scope, digest, exposed_notice, key_id_of, matches, new_secret
from core.concurrency import TtlCache, start_shared
from core.errors import Forbidden, Unauthenticated
from deployments.config import AuthenticationConfig

logger = logging.getLogger(__name__)

CONFIGURED = "configured"
"""Key id of the admin key in the configuration."""
USED_EVERY_S = 60.0
"""Shortest time between two writes of a key's last use, in seconds."""
_NO_KEY = digest("")


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request; a rate of None means no limit."""

    key_id: str
    scopes: tuple[Scope, ...]
    requests_per_s: float | None
    burst: int


ANONYMOUS = Caller("none", ("admin",), None, 1)
"""Any caller while there is no key."""


class ApiKeys:
    """Authenticate callers, and make and revoke keys.

    All keys are read at once and cached for `keys_ttl_s`, so that no request costs a query of its own. A new
    or revoked key counts on all replicas after that time.
    """

    def __init__(self, keys: SqlApiKeys, config: AuthenticationConfig, exposed_at: str | None = None) -> None:
        """`exposed_at` is the address that the service listens on, unless it is loopback."""
        self._exposed_at = exposed_at
        self._keys = keys
        self._config = config
        self._forget()
        self._used_at: dict[str, float] = {}
        self._used: set[str] = set()
        self._writing_used: asyncio.Task[None] | None = None

    async def allow_anonymous(self) -> bool:
        """Return True if there is no key, so that every caller may do everything.

        Raises:
            Forbidden: there is no key, and the service listens on a network.
        """
        if self._config.admin_key_sha256 or await self._known.get(None):
            return False
        if self._exposed_at is not None:
            raise Forbidden(exposed_notice(self._exposed_at))
        return True

    async def authenticate(self, shown: str | None) -> Caller:
        """Find the caller by its key.

        Raises:
            Unauthenticated: the key is missing, unknown or revoked.
            Unavailable: the database does not answer.
        """
        if shown is None:
            raise Unauthenticated("an API key is needed; send it as `Authorization: Bearer …`")
        configured = self._config.admin_key_sha256
        if configured and matches(shown, configured):
            return Caller(CONFIGURED, ("admin",), None, 1)
        key = (await self._known.get(None)).get(key_id_of(shown) or "")
        # Compared in any case, so that the time does not reveal which ids exist.
        right = matches(shown, key.sha256 if key else _NO_KEY)
        if key is None or key.revoked_at is not None or not right:
            raise Unauthenticated("this API key is not known, or it is revoked")
        self._note_use(key.key_id)
        return Caller(
            key.key_id,
            key.scopes,
            key.requests_per_s or self._config.requests_per_s,
            key.burst or self._config.burst,
        )

    async def make(
        self, name: str, scopes: Sequence[Scope], requests_per_s: float | None, burst: int | None
    ) -> tuple[ApiKey, str]:
        """Make a key; return its record, and the key itself, which is not stored.

        Raises:
            Conflict: it is the first key and not an admin key.
        """
        key_id, secret = new_secret()
        key = ApiKey(key_id, name, tuple(scopes), digest(secret), requests_per_s, burst, utc_now())
        await asyncio.to_thread(self._keys.add, key, self._has_configured_admin)
        self._forget()
        return key, secret

    async def revoke(self, key_id: str) -> None:
        """Revoke a key: on this replica at once, on others within `keys_ttl_s`.

        Raises:
            NotFound: there is no such key.
            Conflict: it is the last admin key.
        """
        try:
            await asyncio.to_thread(self._keys.revoke, key_id, self._has_configured_admin)
        finally:
            # Also when the answer of the database was lost: the key may be revoked.
            self._forget()

    async def all(self) -> list[ApiKey]:
        """List all keys of the database, oldest first."""
        return await asyncio.to_thread(self._keys.all)

    @property
    def _has_configured_admin(self) -> bool:
        return bool(self._config.admin_key_sha256)

    def _forget(self) -> None:
        # A new cache, so that a read which a change has overtaken is out of date.
        self._known = TtlCache[None, dict[str, ApiKey]](self._read, self._config.keys_ttl_s)

    async def _read(self, _: None) -> dict[str, ApiKey]:
        return {key.key_id: key for key in await self.all()}

    def _note_use(self, key_id: str) -> None:
        """Write the use in the background: a write may wait long for other writes."""
        now = time.monotonic()
        if now < self._used_at.get(key_id, float("-inf")) + USED_EVERY_S:
            return
        self._used_at[key_id] = now
        self._used.add(key_id)
        if self._writing_used is None or self._writing_used.done():
            self._writing_used = start_shared(self._write_used())

    async def _write_used(self) -> None:
        while self._used:
            used, self._used = self._used, set()
            try:
                await asyncio.to_thread(self._keys.used, dict.fromkeys(used, utc_now()))
            except Exception:
                # The next use after the interval is written again.
                logger.warning("the last use of %d keys could not be written", len(used), exc_info=True)
