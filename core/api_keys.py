"""API keys: their form, what is stored of them, what each may do, and the rule without keys."""

import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = ("read", "write", "admin")
"""Each scope includes those before it."""

NO_KEYS_NOTICE = (
    "No API key is configured: Vitrine answers on loopback only, and anyone there may do everything until "
    "a key is made with POST /v1/keys. To listen on a network, configure an admin key: its sha256 in "
    "VITRINE_ADMIN_KEY_SHA256."
)
_SECRET_BYTES = 32
_KEY = re.compile(rf"vitrine_([0-9a-f]{{12}})_[0-9a-f]{{{2 * _SECRET_BYTES}}}")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is stored: never the key itself.

    `requests_per_s` and `burst` replace the configured rate limit if they are set. `last_used_at` may lag a
    minute behind.
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
    """Draw a key id and the key that holds it; the id may be shown and logged, the key may not."""
    key_id = secrets.token_hex(6)
    return key_id, f"vitrine_{key_id}_{secrets.token_hex(_SECRET_BYTES)}"


def key_id_of(key: str) -> str | None:
    """Read the id in a key; None if it does not have the form of a key."""
    match = _KEY.fullmatch(key)
    return match[1] if match else None


def digest(key: str) -> str:
    """Compute what is stored of a key: the lower-case hex sha256 of its bytes.

    A key is 256 random bits, which cannot be guessed, so it needs no slow, salted hash. NIST SP 800-63B-3,
    5.1.2.2, asks for salt and a password hash only below 112 bits of entropy.
    """
    return hashlib.sha256(key.encode()).hexdigest()


def matches(key: str, sha256: str) -> bool:
    """Compare a key with a stored digest in constant time."""
    return hmac.compare_digest(digest(key), sha256)


def allows(granted: Collection[Scope], needed: Scope) -> bool:
    """Return True if the granted scopes include the needed one: admin includes write, write includes read."""
    return any(SCOPES.index(scope) >= SCOPES.index(needed) for scope in granted)


def exposed_notice(host: str) -> str:
    """Explain why every request is refused: there are no keys, and Serve listens on a network."""
    return (
        f"No API key is configured, and Serve listens on {host}: every request is refused, since anyone in the "
        "network could do everything. Configure an admin key, its sha256 as authentication.admin_key_sha256 of "
        "the gateway's arguments, or have Serve listen on 127.0.0.1 (http_options.host; restart Serve)."
    )


def is_loopback(host: str) -> bool:
    """Return True if a name or an address leads to this machine alone."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
