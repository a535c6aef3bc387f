"""Map errors to HTTP: one table of statuses, one shape of body."""

import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from core.errors import (
    ConfigError,
    Conflict,
    FetchFailed,
    Forbidden,
    InputTooLarge,
    Internal,
    InvalidInput,
    NotFound,
    RateLimited,
    Unauthenticated,
    Unavailable,
    UnsupportedMediaType,
    VitrineError,
)
from deployments.observability.telemetry import id_headers, note_error
from vitrine.schemas.base import ErrorResponse

logger = logging.getLogger(__name__)

STATUS: dict[type[VitrineError], int] = {
    InputTooLarge: 413,
    UnsupportedMediaType: 415,
    InvalidInput: 422,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    RateLimited: 429,
    # Not a 5xx: neither this service nor a gateway of its own is at fault, and an alarm would mislead.
    FetchFailed: 424,
    ConfigError: 500,
    Internal: 500,
    Unavailable: 503,
}
"""The nearest ancestor of an error in this table gives its status."""

GATEWAY_HEADER = "X-Vitrine-Gateway"
"""Marks every answer of the gateway. HAProxy takes it off, and replaces errors without it: those of other parts
of Serve are in forms of their own, and may say of what exists that it does not."""
NOT_CACHED = ("Cache-Control", "no-store")
"""Header of every answer whose route says nothing else of caching."""
RETRY_AFTER_S = 1
"""Seconds after which a caller may try again what did not work just now."""


def status_of(error: VitrineError) -> int:
    """Look an error up in the table."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def error_body(error: VitrineError, request_id: str) -> dict[str, Any]:
    """The one shape of errors, also used for single items of a batch."""
    return _body(error.kind, error.message, error.param, request_id)


def _body(kind: str, message: str, param: str | None, request_id: str) -> dict[str, Any]:
    return {"error": {"type": kind, "message": message, "param": param, "request_id": request_id}}


def answer(error: VitrineError, request_id: str) -> JSONResponse:
    """Answer with an error of ours; also for middleware, which no exception handler sees."""
    note_error(error.kind)
    status = status_of(error)
    headers = {}
    if isinstance(error, RateLimited):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    elif status == 503:
        headers["Retry-After"] = str(RETRY_AFTER_S)
    elif status == 401:
        # RFC 9110, 11.6.1: a 401 names at least one way to authenticate.
        headers["WWW-Authenticate"] = 'Bearer realm="vitrine"'
    return JSONResponse(error_body(error, request_id), status, headers)


def invalid(message: str, location: Sequence[int | str], otherwise: str = "body") -> VitrineError:
    """Convert an error of pydantic: it names the field as a caller would, or `otherwise` where it is about none."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        # Tags of unions begin with a colon.
        elif not part.startswith(":"):
            path += f".{part}" if path else part
    message = message.removeprefix("Value error, ")
    return InvalidInput(message[:1].lower() + message[1:]).at(path or otherwise)


def install(app: FastAPI) -> None:
    """Answer every failure in the one shape."""
    app.add_exception_handler(VitrineError, _answer_ours)
    app.add_exception_handler(RequestValidationError, _answer_validation)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(Exception, _answer_unexpected)


async def _answer_ours(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, VitrineError)
    return answer(error, request.state.request_id)


async def _answer_validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return answer(invalid(first["msg"], first["loc"][1:]), request.state.request_id)


async def _answer_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    request_id = request.state.request_id
    if error.status_code == 404:
        path = request.url.path
        hint = "; paths have no slash at their end" if path.endswith("/") else ""
        return answer(NotFound(f"there is no path {path!r:.200}{hint}"), request_id)
    note_error("invalid_request")
    body = _body("invalid_request", str(error.detail), None, request_id)
    return JSONResponse(body, error.status_code, error.headers)


async def _answer_unexpected(request: Request, error: Exception) -> JSONResponse:
    logger.exception("request %s failed", request.state.request_id, exc_info=error)
    internal = Internal("an internal error; the logs hold it under this request id")
    # This answer is made outside of the middleware that puts these on all others.
    headers = dict([(GATEWAY_HEADER, "1"), NOT_CACHED]) | id_headers(request.state.request_id)
    return JSONResponse(error_body(internal, request.state.request_id), 500, headers)


def kinds() -> Iterator[tuple[str, int, str]]:
    """List the errors that may be answered: type, status, and when."""
    for error in _tree(VitrineError):
        status = status_of(error(""))
        if status != 500:
            when = " ".join((error.__doc__ or "").partition("\n\n")[0].partition("; `")[0].split())
            yield error.kind, status, when.rstrip(".")


def _tree(root: type[VitrineError]) -> Iterator[type[VitrineError]]:
    """Walk the errors of `core/errors.py`, each after its parent."""
    for child in root.__subclasses__():
        yield child
        yield from _tree(child)


_HEADERS = {
    401: {"WWW-Authenticate": "How to send a key."},
    429: {"Retry-After": "Seconds after which one more request is taken."},
    503: {"Retry-After": "Seconds after which it is worth trying again."},
}
ANY_CALL, WITH_KEY, WITH_BODY = (422, 503), (401, 403, 429), (413, 415)
"""Statuses of errors of every call, of those that need a key, and of those that take a body."""


def fails(*statuses: int, model: Any = ErrorResponse) -> dict[int | str, dict[str, Any]]:
    """Describe errors by the table above: the argument `responses` of a route or a router."""
    return {
        status: {
            "model": model,
            "description": " ".join(f"`{kind}`: {when}." for kind, each, when in kinds() if each == status),
            "headers": {
                name: {"description": what, "schema": {"type": "string"}}
                for name, what in _HEADERS.get(status, {}).items()
            },
        }
        for status in statuses
    }
