"""From errors to HTTP: one table, one shape."""

import logging
import re
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from core.errors import (
    ConfigError,
    Conflict,
    InputTooLarge,
    InvalidInput,
    NotFound,
    Unavailable,
    VitrineError,
)

logger = logging.getLogger("ray.serve")

STATUS: dict[type[VitrineError], int] = {
    InputTooLarge: 413,
    InvalidInput: 422,
    NotFound: 404,
    Conflict: 409,
    ConfigError: 500,
    Unavailable: 503,
}
"""The nearest ancestor of an error in this table gives its status."""

RETRY_AFTER_S = "1"


def status_of(error: VitrineError) -> int:
    """Look an error up in the table."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def error_body(error: VitrineError, request_id: str) -> dict[str, Any]:
    """The one shape of errors, also used for single items of a batch."""
    name = "Internal" if type(error) is VitrineError else type(error).__name__
    kind = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
    return {"error": {"type": kind, "message": error.message, "param": error.param, "request_id": request_id}}


def install(app: FastAPI) -> None:
    """Answer every failure in the one shape."""
    app.add_exception_handler(VitrineError, _answer_ours)
    app.add_exception_handler(RequestValidationError, _answer_validation)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(Exception, _answer_unexpected)


async def _answer_ours(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, VitrineError)
    status = status_of(error)
    headers = {"Retry-After": RETRY_AFTER_S} if status == 503 else None
    return JSONResponse(error_body(error, request.state.request_id), status, headers)


async def _answer_validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    invalid = InvalidInput(first["msg"]).at(".".join(str(part) for part in first["loc"][1:]) or "body")
    return await _answer_ours(request, invalid)


async def _answer_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    body = {
        "type": "not_found" if error.status_code == 404 else "invalid_request",
        "message": str(error.detail),
        "param": None,
        "request_id": request.state.request_id,
    }
    return JSONResponse({"error": body}, error.status_code, error.headers)


async def _answer_unexpected(request: Request, error: Exception) -> JSONResponse:
    logger.exception("request %s failed", request.state.request_id, exc_info=error)
    internal = VitrineError("an internal error; the logs hold it under this request id")
    # This answer is made outside of the middleware that puts the id on all others.
    headers = {"X-Request-ID": request.state.request_id}
    return JSONResponse(error_body(internal, request.state.request_id), 500, headers)
