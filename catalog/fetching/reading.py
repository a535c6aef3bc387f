"""What an answer over HTTP holds: a redirect, a file within its limits, or a refusal."""

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpcore

from core.errors import FetchFailed, InputTooLarge, UnfetchableUrl

_REDIRECTS = {301, 302, 303, 307, 308}
_PASSING = {408, 425, 429}
"""Refusals of a client that ask it to come again, as all 5xx do."""


@dataclass(frozen=True, slots=True)
class Redirect:
    """Where else to look, as the server wrote it."""

    location: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A file, and what its server calls this state of it; `body=None`: it is what the caller has already."""

    body: bytes | None
    etag: str | None
    last_modified: str | None


class Budget:
    """The bytes that all URLs of one request may have together."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._left = max_bytes

    def take(self, count: int) -> None:
        """Count bytes; InputTooLarge when none are left."""
        self._left -= count
        if self._left < 0:
            raise InputTooLarge(f"the URLs of this request hold more than {self._max_bytes:,} bytes together")


def redirect_of(response: httpcore.Response) -> Redirect | None:
    """Read a redirect; None when the answer is none."""
    if response.status not in _REDIRECTS:
        return None
    location = _header(response, b"location")
    if not location:
        raise UnfetchableUrl("the URL redirects to nowhere")
    return Redirect(location)


async def read_answer(
    response: httpcore.Response, max_bytes: int, budget: Budget, conditional: bool
) -> Answer:
    """Read the file that an answer carries, or, where that was a condition, that it has not changed (304).

    Raises:
        UnfetchableUrl: the server refuses, or sends the file compressed, which could be a bomb.
        InputTooLarge: the file is larger than `max_bytes`, or the budget is spent.
        FetchFailed: the server failed.
    """
    is_known = conditional and response.status == 304
    body = None if is_known else await _read_body(response, max_bytes, budget)
    return Answer(body, _header(response, b"etag") or None, _header(response, b"last-modified") or None)


async def _read_body(response: httpcore.Response, max_bytes: int, budget: Budget) -> bytes:
    _check_status(response)
    if _header(response, b"content-encoding").lower() not in ("", "identity"):
        raise UnfetchableUrl("the server of this URL compresses its answer, though it was asked not to")
    declared = _header(response, b"content-length")
    if declared.isdigit() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    body = bytearray()
    async for chunk in response.aiter_stream():
        budget.take(len(chunk))
        body += chunk
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
    return bytes(body)


def _check_status(response: httpcore.Response) -> None:
    status = response.status
    if status == 200:
        return
    if status >= 500 or status in _PASSING:
        failed = FetchFailed(f"the server of this URL answered with status {status}")
        failed.retry_after_s = retry_after_s(_header(response, b"retry-after"), datetime.now(UTC))
        raise failed
    refused = UnfetchableUrl(f"the server of this URL answered with status {status}")
    refused.status = status
    raise refused


def retry_after_s(value: str, now: datetime) -> float | None:
    """Read a Retry-After header (RFC 9110, 10.2.3), seconds or a date; None when it is neither."""
    if value.isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds())


def _header(response: httpcore.Response, name: bytes) -> str:
    values = (value for key, value in response.headers if key.lower() == name)
    return next(values, b"").decode("latin-1").strip()


def _too_large(max_bytes: int) -> InputTooLarge:
    return InputTooLarge(f"the file behind the URL is larger than the limit of {max_bytes:,} bytes")
