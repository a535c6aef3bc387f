"""API keys as the gateway knows them: cached from the database, and one of the configuration."""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from catalog.api_keys import SqlApiKeys
from catalog.database import utc_now
from core.api_keys import ApiKey, Scope, digest, exposed_notice, key_id_of, matches, new_secret
from core.concurrency import start_shared
from core.errors import Forbidden, Unauthenticated
from deployments.config import DoorConfig

logger = logging.getLogger(__name__)

CONFIGURED = "configured"
"""Key id of the admin key that stands in the configuration."""
USED_EVERY_S = 60.0
"""How often the last use of a key is written: it is for people, who need no more."""
_NO_KEY = digest("")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request; a rate of None: not limited."""

    key_id: str
    scopes: tuple[Scope, ...]
    requests_per_s: float | None
    burst: int


EVERYONE = Caller("none", ("admin",), None, 1)
"""Whoever calls while there is no key."""


class Keyring:
    """Tells who holds a key.

    All keys are read at once and believed for a moment, so that no request, whatever key it shows, costs
    a query of its own; a new or revoked key counts everywhere after that moment.
    """

    def __init__(self, keys: SqlApiKeys, config: DoorConfig, exposed_at: str | None = None) -> None:
        """`exposed_at` is where the service listens, if that is more than this machine."""
        self._exposed_at = exposed_at
        self._keys = keys
        self._config = config
        self._known: dict[str, ApiKey] = {}
        self._known_until = float("-inf")
        self._changes = 0
        self._lock = asyncio.Lock()
        self._used_at: dict[str, float] = {}
        self._used: set[str] = set()
        self._writing_used: asyncio.Task[None] | None = None

    async def open(self) -> bool:
        """Tell whether everyone may do everything, as no key was ever made.

        Raises:
            Forbidden: none was, or all are lost, and the service listens on a network.
        """
        if self._config.admin_key_sha256 or await self._current():
            return False
        if self._exposed_at is not None:
            raise Forbidden(exposed_notice(self._exposed_at))
        return True

    async def caller(self, shown: str | None) -> Caller:
        """Find out who shows this key.

        Raises:
            Unauthenticated: none is shown, or one that is not known or revoked.
            Unavailable: the database does not answer.
        """
        if shown is None:
            raise Unauthenticated("an API key is needed; send it as `Authorization: Bearer …`")
        configured = self._config.admin_key_sha256
        if configured and matches(shown, configured):
            return Caller(CONFIGURED, ("admin",), None, 1)
        key = (await self._current()).get(key_id_of(shown) or "")
        # Compared in any case, so that the time does not tell which ids exist.
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
        """Make a key; returns what is kept of it, and the key itself, which nothing can show again.

        Raises:
            Conflict: it is the first and not an admin's.
        """
        key_id, secret = new_secret()
        key = ApiKey(key_id, name, tuple(scopes), digest(secret), requests_per_s, burst, utc_now())
        await asyncio.to_thread(self._keys.add, key, self._has_configured_admin)
        self._changed()
        return key, secret

    async def revoke(self, key_id: str) -> None:
        """End a key, here at once and elsewhere after a moment.

        Raises:
            NotFound: there is no such key.
            Conflict: it is the last admin key.
        """
        try:
            await asyncio.to_thread(self._keys.revoke, key_id, self._has_configured_admin)
        finally:
            # Also when the answer of the database was lost: it may have been done.
            self._changed()

    async def all(self) -> list[ApiKey]:
        """List all keys of the database, oldest first."""
        return await asyncio.to_thread(self._keys.all)

    @property
    def _has_configured_admin(self) -> bool:
        return bool(self._config.admin_key_sha256)

    async def _current(self) -> dict[str, ApiKey]:
        if time.monotonic() >= self._known_until:
            # One reads for all who wait.
            async with self._lock:
                if time.monotonic() >= self._known_until:
                    await self._read()
        return self._known

    def _changed(self) -> None:
        self._changes += 1
        self._known_until = float("-inf")

    async def _read(self) -> None:
        changes = self._changes
        self._known = {key.key_id: key for key in await self.all()}
        # What a change has overtaken is out of date already.
        if changes == self._changes:
            self._known_until = time.monotonic() + self._config.keys_ttl_s

    def _note_use(self, key_id: str) -> None:
        """Have the use written, beside the requests: a write may wait long for other writes."""
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
