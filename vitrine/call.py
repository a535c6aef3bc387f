"""A call: what to send, and how to read what comes back. No input or output happens here."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from vitrine.errors import BY_STATUS, ServiceError

T = TypeVar("T")
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A request that is not sent yet.

    A call that is `repeatable` does the same when it is sent twice. `read` turns a good answer into a value;
    the statuses of `also_good` are good ones too.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    params: Mapping[str, Any] | None = None
    json: Any = None
    repeatable: bool = True
    also_good: Collection[int] = ()

    def answer(self, response: httpx.Response, repeated: bool) -> T:
        """Read an answer, to the first request or to one that was repeated.

        Raises:
            ServiceError: it is an error, or not what the service answers.
        """
        # What is gone may have been deleted by an earlier attempt, whose answer never came.
        gone = repeated and self.method == "DELETE" and response.status_code == 404
        # HAProxy answers for a gateway that is away by the same status, as an error.
        good = response.status_code in self.also_good and not is_error(response)
        if not (response.is_success or gone or good):
            raise error_of(response)
        try:
            return self.read(response)
        except (ValidationError, ValueError) as error:
            raise ServiceError(
                f"{response.request.url} answers, but not as Vitrine does: {type(error).__name__}",
                type="unexpected_answer",
                status=response.status_code,
            ) from error


def reader(kind: type[T]) -> Callable[[httpx.Response], T]:
    """Make a reader of JSON of this form."""
    adapter = TypeAdapter(kind)
    return lambda response: adapter.validate_json(response.content)


def nothing(_: httpx.Response) -> None:
    """Read an answer without content."""


def text(response: httpx.Response) -> str:
    """Read an answer as text."""
    return response.text


def content(response: httpx.Response) -> bytes:
    """Read an answer as it is."""
    return response.content


def given(**values: Any) -> dict[str, Any]:
    """Keep the values that are not None, which stand for what the service decides."""
    return {name: value for name, value in values.items() if value is not None}


def is_error(response: httpx.Response) -> bool:
    """Tell whether an answer has the form of an error, whatever its status."""
    try:
        return "error" in response.json()
    except (ValueError, TypeError):
        return False


def error_of(response: httpx.Response) -> ServiceError:
    """Turn an answer that is no success into the error to raise."""
    kind = BY_STATUS.get(response.status_code, ServiceError)
    try:
        told = response.json()["error"]
        facts = {name: told.get(name) for name in ("param", "request_id")}
        message, word = str(told["message"]), str(told["type"])
    except (ValueError, KeyError, TypeError, AttributeError):
        # A proxy in front of the service has its own pages.
        facts = {}
        message = f"{response.status_code} {response.reason_phrase}: {response.text.strip()[:_SHOWN]}"
        word = "unexpected_answer"
    return kind(
        message, type=word, status=response.status_code, retry_after_s=retry_after_s(response), **facts
    )


def retry_after_s(response: httpx.Response) -> float | None:
    """Read when to come again; dates (RFC 9110, 10.2.3) are not sent by the service and count as unsaid."""
    try:
        seconds = float(response.headers["Retry-After"])
    except (KeyError, ValueError):
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
