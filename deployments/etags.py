"""Answers that a caller may keep, and whether it has them already (RFC 9110, 13.1.2)."""

from typing import Any

from starlette.requests import Request

NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "The caller has it: its If-None-Match says so."}
}
"""Describes the answer without content in the OpenAPI document."""


def kept_for_good(etag: str) -> dict[str, str]:
    """Build the headers of an image file, which never changes.

    Only the caller's own cache may keep it: a shared one would hand it to those who have no key, and it
    would still do so when the first key is made after it was read.
    """
    return {"Cache-Control": "private, max-age=31536000, immutable", "ETag": etag}


def matches(request: Request, etag: str) -> bool:
    """Tell whether the header If-None-Match names this tag; weak and strong tags count as equal."""
    sent = ",".join(request.headers.getlist("if-none-match"))
    named = [each.strip().removeprefix("W/") for each in sent.split(",")]
    return "*" in named or etag.removeprefix("W/") in named
