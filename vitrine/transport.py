"""Sending of requests: address and key, reading of responses, and retries."""

import asyncio
import math
import os
import random
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter, ValidationError

from vitrine.errors import BY_STATUS, RateLimited, ServiceError, TryLater, Unavailable, Unreachable

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


@dataclass(slots=True)
class Patience:
    """Tolerance of failures in a row, for `limit_s` seconds."""

    limit_s: float
    _since: float | None = field(default=None, init=False)

    def failed(self, error: TryLater) -> None:
        """Record a failure.

        Raises:
            TryLater: the failures last too long.
        """
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if now - self._since >= self.limit_s:
            raise error

    def succeeded(self) -> None:
        """Forget the failures."""
        self._since = None


@dataclass(frozen=True, slots=True)
class Settings:
    """Address and key of a service; `timeout_s` bounds each attempt, in seconds."""

    url: str
    key: str | None = field(repr=False)
    timeout_s: float
    retries: Retries

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every request."""
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}


def settings(
    url: str | None = None, key: str | None = None, timeout_s: float = 60.0, retries: Retries | None = None
) -> Settings:
    """Complete the arguments by VITRINE_URL and VITRINE_KEY.

    Raises:
        ValueError: the URL is none, or the key cannot be sent.
    """
    url = url or os.environ.get("VITRINE_URL") or DEFAULT_URL
    key = key or os.environ.get("VITRINE_KEY") or None
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"the URL of the service begins with http:// or https://, unlike {url!r}")
    if key is not None and not (key.isascii() and key.isprintable()):
        raise ValueError("a key consists of printable ASCII characters")
    return Settings(url.rstrip("/"), key, timeout_s, retries or Retries())


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A request that is not sent yet.

    Sending it twice does no harm if it is `repeatable`. `read` turns a successful response into a value.
    `accepted_statuses` count as success too.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    params: Mapping[str, Any] | None = None
    json: Any = None
    repeatable: bool = True
    accepted_statuses: Collection[int] = ()

    def result(self, response: httpx.Response, retried: bool) -> T:
        """Read the response to the first attempt or to a retry.

        Raises:
            ServiceError: it is an error, or not a response of Vitrine.
        """
        # An earlier attempt may have deleted it, and its response was lost.
        gone = retried and self.method == "DELETE" and response.status_code == 404
        # HAProxy answers with the same status, as an error, for a gateway that is away.
        accepted = response.status_code in self.accepted_statuses and not _is_error(response)
        if not (response.is_success or gone or accepted):
            raise _error_of(response)
        try:
            return self.read(response)
        except (ValidationError, ValueError) as error:
            raise ServiceError(
                f"{response.request.url} answers, but not as Vitrine does: {type(error).__name__}",
                type="unexpected_answer",
                status=response.status_code,
            ) from error


def path(*parts: str) -> str:
    """Join parts to a path below /v1; each part is escaped."""
    return "/".join(["/v1", *(quote(part, safe="") for part in parts)])


def json_of(kind: type[T]) -> Callable[[httpx.Response], T]:
    """Make a reader of JSON of this type."""
    adapter = TypeAdapter(kind)
    return lambda response: adapter.validate_json(response.content)


def nothing(_: httpx.Response) -> None:
    """Read a response without content."""


def text(response: httpx.Response) -> str:
    """Read a response as text."""
    return response.text


def content(response: httpx.Response) -> bytes:
    """Read the bytes of a response."""
    return response.content


def _is_error(response: httpx.Response) -> bool:
    try:
        return "error" in response.json()
    except (ValueError, TypeError):
        return False


def _error_of(response: httpx.Response) -> ServiceError:
    kind = BY_STATUS.get(response.status_code, ServiceError)
    try:
        error = response.json()["error"]
        fields = {name: error.get(name) for name in ("param", "request_id")}
        message, error_type = str(error["message"]), str(error["type"])
    except (ValueError, KeyError, TypeError, AttributeError):
        # A proxy in front of the service has its own error pages.
        fields = {}
        shown = response.text.strip()[:_MAX_SHOWN_CHARS]
        message = f"{response.status_code} {response.reason_phrase}: {shown}"
        error_type = "unexpected_answer"
    return kind(
        message,
        type=error_type,
        status=response.status_code,
        retry_after_s=_retry_after_s(response),
        **fields,
    )


def _retry_after_s(response: httpx.Response) -> float | None:
    """Read the header Retry-After; the service sends no dates (RFC 9110, 10.2.3), so they are ignored."""
    try:
        seconds = float(response.headers["Retry-After"])
    except (KeyError, ValueError):
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _unreachable(url: httpx.URL, error: httpx.TransportError) -> Unreachable:
    reason = "did not answer in time" if isinstance(error, httpx.TimeoutException) else str(error)
    return Unreachable(f"the service at {url} does not answer: {reason or type(error).__name__}")


class Sender:
    """A connection to the service; safe to use from several threads."""

    def __init__(self, settings: Settings, transport: httpx.BaseTransport | None) -> None:
        self._retries = settings.retries
        self._http = httpx.Client(
            base_url=settings.url, headers=settings.headers, timeout=settings.timeout_s, transport=transport
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def send(self, call: Call[T]) -> T:
        """Send a call, and again where that helps.

        Raises:
            ServiceError: the last response is an error.
        """
        failures = 0
        while True:
            try:
                return self._send_once(call, retried=failures > 0)
            except ServiceError as error:
                failures += 1
                wait_s = self._retries.wait_s(error, failures) if call.repeatable else None
                if wait_s is None:
                    raise
            time.sleep(wait_s)

    def _send_once(self, call: Call[T], retried: bool) -> T:
        try:
            response = self._http.request(call.method, call.path, params=call.params, json=call.json)
        except httpx.TransportError as error:
            raise _unreachable(self._http.base_url, error) from error
        return call.result(response, retried)


class AsyncSender:
    """A connection to the service, for one event loop."""

    def __init__(self, settings: Settings, transport: httpx.AsyncBaseTransport | None) -> None:
        self._retries = settings.retries
        self._http = httpx.AsyncClient(
            base_url=settings.url, headers=settings.headers, timeout=settings.timeout_s, transport=transport
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def send(self, call: Call[T]) -> T:
        """Send a call, and again where that helps.

        Raises:
            ServiceError: the last response is an error.
        """
        failures = 0
        while True:
            try:
                return await self._send_once(call, retried=failures > 0)
            except ServiceError as error:
                failures += 1
                wait_s = self._retries.wait_s(error, failures) if call.repeatable else None
                if wait_s is None:
                    raise
            await asyncio.sleep(wait_s)

    async def _send_once(self, call: Call[T], retried: bool) -> T:
        try:
            response = await self._http.request(call.method, call.path, params=call.params, json=call.json)
        except httpx.TransportError as error:
            raise _unreachable(self._http.base_url, error) from error
        return call.result(response, retried)
