"""The door: who calls, and how often."""

import base64
import ipaddress

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from core.errors import Forbidden, VitrineError
from core.keys import NO_KEYS_NOTICE
from deployments.admission import HEALTH
from deployments.errors import answer
from deployments.foreign_pages import refuse_foreign_pages
from deployments.keyring import EVERYONE, Caller, Keyring
from deployments.rates import RateLimiter
from deployments.services import services

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
