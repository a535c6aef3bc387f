"""Whether a caller has already what it asks for (RFC 9110, 13.1.2)."""

from starlette.requests import Request


def matches(request: Request, etag: str) -> bool:
    """Tell whether the header If-None-Match names this tag; weak and strong tags count as equal."""
    named = [each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")]
    return "*" in named or etag.removeprefix("W/") in named
