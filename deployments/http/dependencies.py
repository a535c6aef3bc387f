"""FastAPI dependencies of the routes: the replica's services, scopes of keys, and known query parameters."""

from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes

from core.api_keys import SCOPES, allows
from core.errors import Forbidden, InvalidInput, Unauthenticated
from deployments.services.api_keys import Caller
from deployments.services.assembly import Services


def services(request: Request) -> Services:
    """Return the services of the replica that answers this request."""
    current: Services = request.app.state.services
    return current


# It describes keys in the OpenAPI document only: the middleware has already checked them.
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
        Unauthenticated: the caller is not authenticated.
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


async def known_query(request: Request) -> None:
    """Refuse query parameters that the route does not read.

    It is `async` although it awaits nothing: FastAPI would run a plain function in a thread.

    Raises:
        InvalidInput: a parameter is unknown, or holds a NUL, which databases refuse.
    """
    known = {field.alias for field in request.scope["route"].dependant.query_params}
    for name in request.query_params:
        if name not in known:
            choice = f"parameters: {', '.join(sorted(known))}" if known else "this call takes none"
            raise InvalidInput(f"unknown query parameter; {choice}").at(name)
        if any("\0" in value for value in request.query_params.getlist(name)):
            raise InvalidInput("a text may not hold the character NUL").at(name)
