"""Authentication: API keys with scopes and rate limits, local access without keys, and cross-site requests."""

import base64
import time
from collections.abc import Callable, Collection
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer, SecurityScopes
from starlette.types import ASGIApp, Receive, Scope, Send

from core.api_keys import NO_KEYS_NOTICE, SCOPES, allows, is_loopback
from core.errors import Forbidden, RateLimited, Unauthenticated, VitrineError
from deployments.http.errors import answer
from deployments.http.middleware import HEALTH, HttpMiddleware
from deployments.services.api_keys import ANONYMOUS, ApiKeys, Caller
from deployments.services.assembly import Services

PUBLIC = frozenset({"/", "/operations", "/v1/openapi.json"})
PUBLIC_FOLDERS = (*HEALTH, "/web/")
"""Paths that need no key: these, and all below these folders. Everything else needs one."""
FORWARDED = ("forwarded", "via", "x-real-ip")
FORWARDED_PREFIX = "x-forwarded-"
"""Headers by which a proxy says that it asks for another client."""
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_SAME_SITE = frozenset({"same-origin", "none"})


class Authentication(HttpMiddleware):
    """Middleware that finds the caller by its key and applies its rate limit; it sets `request.state.caller`.

    It runs before the body is read, so that requests without a key cost little.
    """

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(app)
        self._rates = RateLimiter()

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401, 403 or 429."""
        if needs_key(scope["path"]):
            request = Request(scope)
            services: Services = request.app.state.services
            try:
                caller = await _caller(request, services.api_keys)
                if caller.requests_per_s is not None:
                    self._rates.take(caller.key_id, caller.requests_per_s, caller.burst)
            except VitrineError as error:
                await answer(error, request.state.request_id)(scope, receive, send)
                return
            request.state.caller = caller
        await self._app(scope, receive, send)


def needs_key(path: str) -> bool:
    """Return True if requests for a path must be authenticated."""
    return path not in PUBLIC and not path.startswith(PUBLIC_FOLDERS)


async def _caller(request: Request, api_keys: ApiKeys) -> Caller:
    if await api_keys.allow_anonymous():
        _check_local(request)
        refuse_cross_site(request)
        return ANONYMOUS
    return await api_keys.authenticate(_key_in(request))


def _key_in(request: Request) -> str | None:
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and credentials.strip():
        return credentials.strip()
    key = request.headers.get("x-api-key")
    if not key and scheme.lower() == "basic" and (key := _password(credentials.strip())):
        # Browsers remember it, and send it with requests of any page.
        refuse_cross_site(request)
    return key


def _password(credentials: str) -> str:
    """Return the password of HTTP Basic (RFC 7617), for callers that can put a key only into a URL."""
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def refuse_cross_site(request: Request) -> None:
    """Refuse requests of other sites' pages, except GET, HEAD and OPTIONS.

    Browsers send Sec-Fetch-Site (W3C Fetch Metadata), older ones only Origin; a page can change neither.

    Raises:
        Forbidden: the page of another site sent the request.
    """
    if request.method in _SAFE:
        return
    site = request.headers.get("sec-fetch-site")
    if site is None:
        origin = request.headers.get("origin")
        # An origin is a scheme with a host and its port (RFC 6454); Host is the latter two.
        host = request.headers.get("host", "").lower()
        same = origin is None or origin.partition("://")[2].lower() == host
    else:
        same = site in _SAME_SITE
    if not same:
        raise Forbidden(
            "a page of another site may send only GET here, unless it sends a key as a bearer token"
        )


def _check_local(request: Request) -> None:
    """Refuse callers of other machines while there are no keys.

    Behind a proxy on this machine the peer is always local, so the host name is checked too. That also stops
    pages of other sites whose name was made to resolve to this machine (DNS rebinding). Many proxies set a
    local host name and name the client in other headers. Those could be forged, so such a request is refused.
    Serve's own proxies send no such header.
    """
    for name in request.headers:
        if name in FORWARDED or name.startswith(FORWARDED_PREFIX):
            raise Forbidden(f"this request came through a proxy, as its header {name} says. {NO_KEYS_NOTICE}")
    peer = request.client.host if request.client else "localhost"
    if not (is_loopback(peer) and is_loopback(_name_in(request.headers.get("host", "")))):
        raise Forbidden(NO_KEYS_NOTICE)


def _name_in(host: str) -> str:
    """Strip the port off a Host header, and the brackets off an IPv6 address (RFC 9110, 7.2)."""
    name = host.partition("]")[0][1:] if host.startswith("[") else host.partition(":")[0]
    return name.lower()


_FEW_KEYS = 1024
"""Keys that are kept without a check for full buckets."""


class RateLimiter:
    """A token bucket for each key, in memory: `burst` tokens, refilled at a rate per second.

    It is the generic cell rate algorithm (ITU-T I.371), with one number per key: the time at which its bucket
    will be full again. Keys with a full bucket are dropped, so memory is bounded by twice the keys of the last
    `burst / requests_per_s` seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._full_at: dict[str, float] = {}
        self._prune_at = _FEW_KEYS

    def __len__(self) -> int:
        """Count the keys in memory."""
        return len(self._full_at)

    def take(self, key_id: str, requests_per_s: float, burst: int) -> None:
        """Take a token from the bucket of a key.

        Raises:
            RateLimited: the bucket is empty; `retry_after_s` is the time until the next token.
        """
        now = self._clock()
        full_at = max(self._full_at.get(key_id, now), now) + 1 / requests_per_s
        wait_s = full_at - now - burst / requests_per_s
        # Tolerates the rounding of floats for a token that is due now.
        if wait_s > 1e-9:
            error = RateLimited(
                f"more than {requests_per_s:g} requests per second, or {burst} at once; slow down"
            )
            error.retry_after_s = wait_s
            raise error
        self._full_at[key_id] = full_at
        if len(self._full_at) > self._prune_at:
            self._full_at = {key: full for key, full in self._full_at.items() if full > now}
            # Doubled, so that a request pays for two keys on average.
            self._prune_at = max(_FEW_KEYS, 2 * len(self._full_at))


def check_scopes(request: Request, needed: Collection[str]) -> None:
    """Refuse a caller without these scopes.

    Raises:
        Unauthenticated: the caller is not authenticated.
        Forbidden: the caller's key lacks a scope.
    """
    caller: Caller | None = getattr(request.state, "caller", None)
    if caller is None:
        raise Unauthenticated("an API key is needed; send it as `Authorization: Bearer …`")
    for scope in SCOPES:
        if scope in needed and not allows(caller.scopes, scope):
            held = ", ".join(caller.scopes)
            raise Forbidden(f"this call needs a key with the scope {scope}; yours has: {held}")


# They describe keys in the OpenAPI document only: the middleware has already checked them.
_BEARER = HTTPBearer(auto_error=False, scheme_name="ApiKey", description="`Authorization: Bearer vitrine_…`")
_HEADER = APIKeyHeader(name="X-API-Key", auto_error=False, scheme_name="ApiKeyHeader")


async def needs_scope(
    request: Request,
    needed: SecurityScopes,
    _bearer: Annotated[object, Depends(_BEARER)],
    _header: Annotated[object, Depends(_HEADER)],
) -> None:
    """Refuse callers without the scopes of the route; same errors as `check_scopes`."""
    check_scopes(request, needed.scopes)


READ = Security(needs_scope, scopes=["read"])
WRITE = Security(needs_scope, scopes=["write"])
ADMIN = Security(needs_scope, scopes=["admin"])
