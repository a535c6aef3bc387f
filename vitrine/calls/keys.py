"""API keys."""

from collections.abc import Sequence

from vitrine.call import Call, given, nothing, reader
from vitrine.calls.paths import path
from vitrine.operations import Key, NewKey, Scope

_NEW, _KEYS = reader(NewKey), reader(list[Key])


def create(
    name: str, scopes: Sequence[Scope], *, requests_per_s: float | None = None, burst: int | None = None
) -> Call[NewKey]:
    """Make a key and show it this once; the first one must be an admin's, and closes the service to others."""
    body = given(name=name, scopes=list(scopes), requests_per_s=requests_per_s, burst=burst)
    return Call("POST", path("keys"), _NEW, json=body, repeatable=False)


def listed() -> Call[list[Key]]:
    """List all keys, revoked ones too, oldest first."""
    return Call("GET", path("keys"), _KEYS)


def revoke(key_id: str) -> Call[None]:
    """End a key for good."""
    return Call("DELETE", path("keys", key_id), nothing)
