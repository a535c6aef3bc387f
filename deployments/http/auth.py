"""Authentication: API keys, local access without keys, cross-site requests and the scopes of routes."""

import base64
import ipaddress
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes
from starlette.types import ASGIApp, Receive, Scope, Send

from core.api_keys import NO_KEYS_NOTICE, SCOPES, allows
from core.errors import Forbidden, Unauthenticated, VitrineError
from deployments.http.errors import answer
from deployments.http.limits import HEALTH, RateLimiter
from deployments.services.api_keys import EVERYONE, Caller, Keyring
from deployments.services.assembly import services

_HARMLESS = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN = frozenset({"same-origin", "none"})


def refuse_foreign_pages(request: Request) -> None:
    """Let through GET, HEAD and OPTIONS, and what no browser says was asked for by another site's page.

    Browsers tell by Sec-Fetch-Site (W3C Fetch Metadata), older ones by Origin alone; a page can change neither.

    Raises:
        Forbidden: another site's page asks.
    """
    if request.method in _HARMLESS:
        return
    site = request.headers.get("sec-fetch-site")
    if site is None:
        origin = request.headers.get("origin")
        # An origin is a scheme with a host and its port (RFC 6454), and Host is the latter two.
        host = request.headers.get("host", "").lower()
        own = origin is None or origin.partition("://")[2].lower() == host
    else:
        own = site in _OWN
    if not own:
        raise Forbidden(
            "a page of another site may send nothing but GET here, unless it shows a key as a bearer token"
        )


PUBLIC = frozenset({"/", "/operations", "/v1/openapi.json"})
PUBLIC_FOLDERS = (*HEALTH, "/web/")
"""What needs no key: these paths, and all that lies below these. Everything else needs one."""
FORWARDED = ("forwarded", "via", "x-real-ip")
FORWARDED_PREFIX = "x-forwarded-"
"""Headers by which a proxy says that it asks for somebody else."""


class Door:
    """Let requests in by their key, each key as often as it may; `request.state.caller` says who it was.

    It stands before the body is read, so that a stranger costs nothing.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._rates = RateLimiter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401, 403 or 429."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if needs_key(scope["path"]):
            request = Request(scope)
            try:
                caller = await _caller(request, services(request).keyring)
                if caller.requests_per_s is not None:
                    self._rates.take(caller.key_id, caller.requests_per_s, caller.burst)
            except VitrineError as error:
                await answer(error, request.state.request_id)(scope, receive, send)
                return
            request.state.caller = caller
        await self._app(scope, receive, send)


def needs_key(path: str) -> bool:
    """Tell whether a path lies behind the door."""
    return path not in PUBLIC and not path.startswith(PUBLIC_FOLDERS)


async def _caller(request: Request, keyring: Keyring) -> Caller:
    if await keyring.open():
        _check_local(request)
        refuse_foreign_pages(request)
        return EVERYONE
    return await keyring.caller(_shown_key(request))


def _shown_key(request: Request) -> str | None:
    scheme, _, shown = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and shown.strip():
        return shown.strip()
    key = request.headers.get("x-api-key")
    if not key and scheme.lower() == "basic" and (key := _password(shown.strip())):
        # Browsers remember it, and show it for whatever page asks.
        refuse_foreign_pages(request)
    return key


def _password(credentials: str) -> str:
    """The password of HTTP Basic (RFC 7617): what callers send that can put a key only into a URL."""
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def _check_local(request: Request) -> None:
    """Refuse strangers while there are no keys.

    Behind a proxy on this machine the peer is always local, so the name that the caller used is checked as
    well. That also keeps out pages of other sites whose name was made to lead here (DNS rebinding). Many
    proxies put a local name there too, and say by other headers that they ask for somebody else: who that is
    cannot be known for sure, so it is a stranger. Serve's own proxies send no such header.
    """
    for name in request.headers:
        if name in FORWARDED or name.startswith(FORWARDED_PREFIX):
            raise Forbidden(f"this request came through a proxy, as its header {name} says. {NO_KEYS_NOTICE}")
    peer = request.client.host if request.client else "localhost"
    if not (is_loopback(peer) and is_loopback(_name_in(request.headers.get("host", "")))):
        raise Forbidden(NO_KEYS_NOTICE)


def _name_in(host: str) -> str:
    """Take the port off a Host header, and the brackets off an IPv6 address (RFC 9110, 7.2)."""
    name = host.partition("]")[0][1:] if host.startswith("[") else host.partition(":")[0]
    return name.lower()


def is_loopback(host: str) -> bool:
    """Tell whether a name or an address leads to this machine alone."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


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
