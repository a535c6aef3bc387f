"""Sending of requests: address and key, reading of responses, and retries."""

import asyncio
import math
import os
import random
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import count
from threading import Event
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter, ValidationError

from vitrine.errors import BY_STATUS, RateLimited, ServiceError, Unavailable, Unreachable

DEFAULT_URL = "http://127.0.0.1:8000"
_MAX_SHOWN_CHARS = 200
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Retries:
    """Number of retries and the waits between them.

    A retry waits as long as the service asks for. It gives up where that is more than `max_wait_s`. Where the
    service does not say, it waits `first_wait_s`, doubled after each failure. A call is retried only if doing
    it twice does no harm.
    """

    count: int = 3
    first_wait_s: float = 0.25
    max_wait_s: float = 30.0

    def wait_s(self, error: ServiceError, failures: int) -> float | None:
        """Return the seconds to wait after that many failures; None: give up."""
        if failures > self.count or not isinstance(error, RateLimited | Unavailable | Unreachable):
            return None
        if error.retry_after_s is not None:
            return error.retry_after_s if error.retry_after_s <= self.max_wait_s else None
        # Many clients that were turned away at once should not come back at once.
        wait_s = self.first_wait_s * 2.0 ** (failures - 1) * random.uniform(0.75, 1.25)
        return min(wait_s, self.max_wait_s)


def connection(url: str | None, key: str | None, timeout_s: float) -> dict[str, Any]:
    """Return the arguments of an HTTP client, by default with VITRINE_URL and VITRINE_KEY.

    Raises:
        ValueError: the URL is none, or the key cannot be sent.
    """
    url = url or os.environ.get("VITRINE_URL") or DEFAULT_URL
    key = os.environ.get("VITRINE_KEY") if key is None else key
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"the URL of the service begins with http:// or https://, unlike {url!r}")
    if key and not (key.isascii() and key.isprintable()):
        raise ValueError("a key consists of printable ASCII characters")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return {"base_url": url.rstrip("/"), "headers": headers, "timeout": timeout_s}


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A request that is not sent yet; a successful response is read as `kind`.

    The body is `json`, or `lines` of JSON. Sending it twice does no harm if it is `repeatable`. `accepted_statuses`
    count as success too.
    """

    method: str
    path: str
    kind: type[T]
    params: Mapping[str, Any] | None = None
    json: Any = None
    lines: bytes | None = None
    repeatable: bool = True
    accepted_statuses: Collection[int] = ()

    @property
    def request(self) -> dict[str, Any]:
        """Arguments of the HTTP client's method `request`."""
        if self.lines is None:
            body: dict[str, Any] = {"json": self.json}
        else:
            body = {"content": self.lines, "headers": {"Content-Type": "application/x-ndjson"}}
        return {"method": self.method, "url": self.path, "params": self.params, **body}

    def result(self, response: httpx.Response, retried: bool) -> T:
        """Read the response to the first attempt or to a retry.

        Raises:
            ServiceError: it is an error, or not a response of Vitrine.
        """
        # An earlier attempt may have deleted it, and its response was lost.
        gone = retried and self.method == "DELETE" and response.status_code == 404
        # HAProxy answers with the same status, as an error, for a gateway that is away.
        accepted = response.status_code in self.accepted_statuses and not _error_fields(response)
        if not (response.is_success or gone or accepted):
            raise _error_of(response)
        try:
            content: T = _content(response, self.kind)
        except (ValidationError, ValueError) as error:
            raise ServiceError(
                f"{response.request.url} answers, but not as Vitrine does: {type(error).__name__}",
                type="unexpected_answer",
                status=response.status_code,
            ) from error
        return content


def path(*parts: str) -> str:
    """Join parts to a path below /v1; each part is escaped."""
    return "/".join(["/v1", *(quote(part, safe="") for part in parts)])


def given(**values: Any) -> dict[str, Any]:
    """Keep the values that are not None; the service decides about the others."""
    return {name: value for name, value in values.items() if value is not None}


def waiting(wait: bool) -> dict[str, Any]:
    """Return the parameters of a write that waits for the index or does not."""
    return given(wait=None if wait else False)


def _content(response: httpx.Response, kind: Any) -> Any:
    """Read nothing, text or bytes as they are, and any other type from JSON."""
    if kind is type(None):
        return None
    if kind is str:
        return response.text
    return response.content if kind is bytes else _adapter(kind).validate_json(response.content)


_adapter = cache(TypeAdapter)


def _error_fields(response: httpx.Response) -> dict[str, Any] | None:
    """Read an error of Vitrine; None where the response is none."""
    try:
        error = response.json()["error"]
        return {name: error[name] for name in ("message", "type")} | {
            name: error.get(name) for name in ("param", "request_id")
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _error_of(response: httpx.Response) -> ServiceError:
    # A proxy in front of the service has its own error pages.
    shown = response.text.strip()[:_MAX_SHOWN_CHARS]
    page = f"{response.status_code} {response.reason_phrase}: {shown}"
    fields = _error_fields(response) or {"message": page, "type": "unexpected_answer"}
    kind = BY_STATUS.get(response.status_code, ServiceError)
    return kind(status=response.status_code, retry_after_s=_retry_after_s(response), **fields)


def _retry_after_s(response: httpx.Response) -> float | None:
    """Read the header Retry-After; the service sends no dates (RFC 9110, 10.2.3), so they are ignored."""
    try:
        seconds = float(response.headers["Retry-After"])
    except (KeyError, ValueError):
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


@contextmanager
def _reached(url: httpx.URL) -> Iterator[None]:
    """Turn errors of the connection into Unreachable."""
    try:
        yield
    except httpx.TransportError as error:
        reason = "did not answer in time" if isinstance(error, httpx.TimeoutException) else str(error)
        raise Unreachable(
            f"the service at {url} does not answer: {reason or type(error).__name__}"
        ) from error


class Sender:
    """A connection to the service; safe to use from several threads."""

    def __init__(self, http: httpx.Client, retries: Retries | None) -> None:
        self._http = http
        self.retries = retries or Retries()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def send(self, call: Call[T], stop: Event | None = None) -> T:
        """Send a call, and again where that helps, until `stop` is set.

        Raises:
            ServiceError: the last response is an error.
        """
        stop = stop or Event()
        for failures in count():
            try:
                with _reached(self._http.base_url):
                    response = self._http.request(**call.request)
                return call.result(response, retried=failures > 0)
            except ServiceError as error:
                wait_s = self.retries.wait_s(error, failures + 1) if call.repeatable else None
                if wait_s is None or stop.wait(wait_s):
                    raise
        raise AssertionError


class AsyncSender:
    """A connection to the service, for one event loop."""

    def __init__(self, http: httpx.AsyncClient, retries: Retries | None) -> None:
        self._http = http
        self.retries = retries or Retries()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def send(self, call: Call[T]) -> T:
        """Send a call, and again where that helps.

        Raises:
            ServiceError: the last response is an error.
        """
        for failures in count():
            try:
                with _reached(self._http.base_url):
                    response = await self._http.request(**call.request)
                return call.result(response, retried=failures > 0)
            except ServiceError as error:
                wait_s = self.retries.wait_s(error, failures + 1) if call.repeatable else None
                if wait_s is None:
                    raise
            await asyncio.sleep(wait_s)
        raise AssertionError
