"""Which errors each call may answer, in the OpenAPI document."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, Field

from core.errors import VitrineError
from deployments.errors import kind_of, status_of

_HEADERS = {
    401: {"WWW-Authenticate": "How to send a key."},
    429: {"Retry-After": "Seconds after which one more request is taken."},
    503: {"Retry-After": "Seconds after which it is worth trying again."},
}


class ErrorDetail(BaseModel):
    """What was wrong."""

    type: str = Field(description="The kind of error, for programs.")
    message: str = Field(description="What was wrong, and what would be right, for people.")
    param: str | None = Field(description="The field, parameter or header that the error is about.")
    request_id: str = Field(description="The id under which the logs hold the request.")


class ErrorView(BaseModel):
    """The one shape of errors."""

    error: ErrorDetail


class WeaviateErrorView(BaseModel):
    """An error as Weaviate reads it, or as the door in front of all calls writes it."""

    error: str | ErrorDetail


def kinds() -> Iterator[tuple[str, int, str]]:
    """List the errors that may be answered: type, status, and when."""
    for error in _tree(VitrineError):
        status = status_of(error(""))
        if status != 500:
            when = " ".join((error.__doc__ or "").partition("\n\n")[0].partition("; `")[0].split())
            yield kind_of(error), status, when.rstrip(".")


def components(shape: str) -> dict[str, Any]:
    """The answers that calls refer to, with errors in a shape."""
    return {reference(status, shape): _answer(status, shape) for status in sorted(_statuses())}


def reference(status: int, shape: str) -> str:
    """Name an answer within the components of the document."""
    return f"{shape.removesuffix('View')}{status}"


def own_statuses(operation: dict[str, Any], guarded: bool) -> list[int]:
    """Tell what a call can answer because it is a call, needs a key, or takes a body."""
    return [
        422,
        503,
        *([401, 403, 429] if guarded else []),
        *([413, 415] if "requestBody" in operation else []),
    ]


def _answer(status: int, shape: str) -> dict[str, Any]:
    lines = [f"`{kind}`: {when}." for kind, each, when in kinds() if each == status]
    headers = {
        name: {"description": what, "schema": {"type": "string"}}
        for name, what in _HEADERS.get(status, {}).items()
    }
    schema = {"$ref": f"#/components/schemas/{shape}"}
    return {
        "description": " ".join(lines),
        "headers": headers,
        "content": {"application/json": {"schema": schema}},
    }


def _statuses() -> set[int]:
    return {status for _, status, _ in kinds()}


def _tree(root: type[VitrineError]) -> Iterator[type[VitrineError]]:
    """Walk the errors of `core/errors.py`, each after its parent."""
    for child in root.__subclasses__():
        yield child
        yield from _tree(child)
