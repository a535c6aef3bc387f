"""API keys: their form, what is stored of them, and what each may do."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = ("read", "write", "admin")
"""Each scope holds those before it."""

NO_KEYS_NOTICE = (
    "No API key is configured: Vitrine answers on loopback only, and everyone there may do everything until "
    "a key is made with POST /v1/keys. To listen on a network, configure an admin key: its sha256 in "
    "VITRINE_ADMIN_KEY_SHA256."
)


def exposed_notice(host: str) -> str:
    """Say why nobody is answered where there are no keys and Serve listens on a network."""
    return (
        f"No API key is configured, and Serve listens on {host}: nobody is answered, as everyone in the network "
        "could do everything. Configure an admin key, its sha256 as door.admin_key_sha256 of the gateway's "
        "arguments, or have Serve listen on 127.0.0.1 (http_options.host, which takes a new start of Serve)."
    )


_SECRET_BYTES = 32
_KEY = re.compile(rf"vitrine_([0-9a-f]{{12}})_[0-9a-f]{{{2 * _SECRET_BYTES}}}")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is kept: never the key itself.

    `requests_per_s` and `burst` replace the configured rate limit where they are given. `last_used_at` may
    lag a minute behind.
    """

    key_id: str
    name: str
    scopes: tuple[Scope, ...]
    sha256: str
    requests_per_s: float | None
    burst: int | None
    created_at: datetime
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None


def new_secret() -> tuple[str, str]:
    """Draw a key id and the key that carries it; the id may be shown and logged, the key may not."""
    key_id = secrets.token_hex(6)
    return key_id, f"vitrine_{key_id}_{secrets.token_hex(_SECRET_BYTES)}"


def key_id_of(key: str) -> str | None:
    """Read the id that a key carries; None when this is no key of ours."""
    match = _KEY.fullmatch(key)
    return match[1] if match else None


def digest(key: str) -> str:
    """Compute what is kept of a key: the lower-case hex sha256 of its bytes.

    One round of a plain hash is right here, unlike for passwords: a slow, salted hash makes guessing
    expensive, and 256 random bits cannot be guessed. NIST SP 800-63B-3, 5.1.2.2, asks for salt and a
    password hash only below 112 bits of entropy.
    """
    return hashlib.sha256(key.encode()).hexdigest()


def matches(key: str, sha256: str) -> bool:
    """Compare a key with a kept digest in a time that does not tell how much of it is right."""
    return hmac.compare_digest(digest(key), sha256)


def allows(granted: Collection[Scope], needed: Scope) -> bool:
    """Tell whether the granted scopes hold the needed one: admin holds write, write holds read."""
    return any(SCOPES.index(scope) >= SCOPES.index(needed) for scope in granted)
