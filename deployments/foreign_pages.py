"""Requests that a page of another site makes with what the browser may do, and its reader never asked for."""

from starlette.requests import Request

from core.errors import Forbidden

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
