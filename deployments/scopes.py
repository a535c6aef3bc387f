"""What a route asks of its caller: `dependencies=[READ]`, on a router or on a route."""

from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes

from core.errors import Forbidden, Unauthenticated
from core.keys import SCOPES, allows
from deployments.keyring import Caller

# It only describes keys in the OpenAPI document; the door has read and checked them before.
_described = HTTPBearer(
    auto_error=False, scheme_name="ApiKey", description="`Authorization: Bearer vitrine_…`"
)


async def needs_scope(
    request: Request,
    needed: SecurityScopes,
    _: Annotated[HTTPAuthorizationCredentials | None, Depends(_described)],
) -> None:
    """Refuse callers without the scopes of the route.

    Raises:
        Unauthenticated: nobody was let in at the door.
        Forbidden: the caller's key lacks a scope.
    """
    caller: Caller | None = getattr(request.state, "caller", None)
    if caller is None:
        raise Unauthenticated("an API key is needed; send it as `Authorization: Bearer …`")
    for scope in SCOPES:
        if scope in needed.scopes and not allows(caller.scopes, scope):
            held = ", ".join(caller.scopes)
            raise Forbidden(f"this call needs a key with the scope {scope}; yours has: {held}")


READ = Security(needs_scope, scopes=["read"])
WRITE = Security(needs_scope, scopes=["write"])
ADMIN = Security(needs_scope, scopes=["admin"])
