"""Requests that a page of another site makes with what the browser may do, and its reader never asked for."""

from urllib.parse import urlsplit

from starlette.requests import Request

from core.errors import Forbidden

_CHANGE_NOTHING = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN = frozenset({"same-origin", "none"})


def refuse_foreign_pages(request: Request) -> None:
    """Let through what changes nothing, and what no browser says was asked for by another site's page.

    Browsers tell by Sec-Fetch-Site (W3C Fetch Metadata), older ones by Origin alone; a page can change neither.

    Raises:
        Forbidden: another site's page asks.
    """
    if request.method in _CHANGE_NOTHING:
        return
    site = request.headers.get("sec-fetch-site")
    if site is None:
        origin = request.headers.get("origin")
        own = origin is None or urlsplit(origin).netloc.lower() == request.headers.get("host", "").lower()
    else:
        own = site in _OWN
    if not own:
        raise Forbidden(
            "a page of another site may change nothing here; show a key as a bearer token instead"
        )
