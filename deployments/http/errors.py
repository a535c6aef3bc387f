"""Map errors to HTTP: one table of statuses, one shape of body."""

import logging
import math
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
    kind = error.kind
    return {"error": {"type": kind, "message": error.message, "param": error.param, "request_id": request_id}}


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
    invalid = InvalidInput(first["msg"]).at(".".join(str(part) for part in first["loc"][1:]) or "body")
    return await _answer_ours(request, invalid)


async def _answer_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    kind, message = "invalid_request", str(error.detail)
    if error.status_code == 404:
        path = request.url.path
        kind, message = "not_found", f"there is no path {path!r:.200}"
        if path.endswith("/"):
            message += "; paths have no slash at their end"
    note_error(kind)
    body = {
        "type": kind,
        "message": message,
        "param": None,
        "request_id": request.state.request_id,
    }
    return JSONResponse({"error": body}, error.status_code, error.headers)


async def _answer_unexpected(request: Request, error: Exception) -> JSONResponse:
    logger.exception("request %s failed", request.state.request_id, exc_info=error)
    internal = Internal("an internal error; the logs hold it under this request id")
    # This answer is made outside of the middleware that puts these on all others.
    headers = dict([(GATEWAY_HEADER, "1"), NOT_CACHED]) | id_headers(request.state.request_id)
    return JSONResponse(error_body(internal, request.state.request_id), 500, headers)


def fails(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Declare statuses of errors: the argument `responses` of a route.

    The OpenAPI document adds what follows from the rest of the route (a key, a body), and the contents.
    """
    return {status: {"description": ""} for status in statuses}
