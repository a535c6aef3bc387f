"""Requests to the service: where it is, how answers are read, and when a request is sent again."""

import asyncio
import inspect
import math
import os
import random
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, get_args, get_type_hints
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter, ValidationError

from vitrine.errors import BY_STATUS, RateLimited, ServiceError, Unavailable, Unreachable


@dataclass(frozen=True, slots=True)
class Retries:
    """How often and how patiently a call is repeated that a service could not answer just now.

    After each failure it waits as long as the service asked for, at most `max_wait_s`; where that is not
    said, `first_wait_s`, doubled each time. Only calls that do no harm when they are done twice are repeated.
    """

    count: int = 3
    first_wait_s: float = 0.25
    max_wait_s: float = 30.0

    def wait_s(self, error: ServiceError, failures: int) -> float | None:
        """Say how long to wait after that many failures, in seconds; None: give up."""
        if failures > self.count or not isinstance(error, RateLimited | Unavailable | Unreachable):
            return None
        if error.retry_after_s is not None:
            return error.retry_after_s if error.retry_after_s <= self.max_wait_s else None
        # Many clients that were turned away at once should not come back at once.
        wait_s = self.first_wait_s * 2.0 ** (failures - 1) * random.uniform(0.75, 1.25)
        return min(wait_s, self.max_wait_s)


DEFAULT_URL = "http://127.0.0.1:8000"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a client needs to know; `timeout_s` bounds each attempt, in seconds."""

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
    """Complete what is given by VITRINE_URL and VITRINE_KEY.

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


M = TypeVar("M", bound=Callable[..., Any])


def method_of(build: Callable[..., Any], method: M) -> M:
    """Give a method the name, the text and the arguments of the function that builds its call."""
    taken = inspect.signature(build)
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    answers = get_args(get_type_hints(build)["return"])[0]
    shown = taken.replace(parameters=[own, *taken.parameters.values()], return_annotation=answers)
    method.__name__, method.__doc__ = build.__name__, build.__doc__
    method.__signature__ = shown  # type: ignore[attr-defined]
    return method


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


def path(*parts: str) -> str:
    """Join parts to a path below /v1; what callers name is escaped."""
    return "/".join(["/v1", *(quote(part, safe="") for part in parts)])


P = ParamSpec("P")


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
        """Send a call until it is answered or no patience is left.

        Raises:
            ServiceError: the answer is an error.
        """
        failures = 0
        while True:
            try:
                return self._once(call, repeated=failures > 0)
            except ServiceError as error:
                failures += 1
                wait_s = self._retries.wait_s(error, failures) if call.repeatable else None
                if wait_s is None:
                    raise
            time.sleep(wait_s)

    def _once(self, call: Call[T], repeated: bool) -> T:
        try:
            response = self._http.request(call.method, call.path, params=call.params, json=call.json)
        except httpx.TransportError as error:
            raise unreachable(self._http.base_url, error) from error
        return call.answer(response, repeated)


class Sending(Protocol):
    """Whatever has calls that it sends."""

    _sender: Sender


def sent(build: Callable[P, Call[T]]) -> Callable[Concatenate[Any, P], T]:
    """Make a method of a call: the same arguments, and what the service answers."""

    def method(self: Sending, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._sender.send(build(*args, **kwargs))

    return method_of(build, method)


def unreachable(url: httpx.URL, error: httpx.TransportError) -> Unreachable:
    """Say that nothing answered, and why."""
    reason = "did not answer in time" if isinstance(error, httpx.TimeoutException) else str(error)
    return Unreachable(f"the service at {url} does not answer: {reason or type(error).__name__}")


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
        """Send a call until it is answered or no patience is left.

        Raises:
            ServiceError: the answer is an error.
        """
        failures = 0
        while True:
            try:
                return await self._once(call, repeated=failures > 0)
            except ServiceError as error:
                failures += 1
                wait_s = self._retries.wait_s(error, failures) if call.repeatable else None
                if wait_s is None:
                    raise
            await asyncio.sleep(wait_s)

    async def _once(self, call: Call[T], repeated: bool) -> T:
        try:
            response = await self._http.request(call.method, call.path, params=call.params, json=call.json)
        except httpx.TransportError as error:
            raise unreachable(self._http.base_url, error) from error
        return call.answer(response, repeated)


class AsyncSending(Protocol):
    """Whatever has calls that it sends."""

    _sender: AsyncSender


def sent_async(build: Callable[P, Call[T]]) -> Callable[Concatenate[Any, P], Awaitable[T]]:
    """Make a method of a call: the same arguments, and what the service answers."""

    async def method(self: AsyncSending, /, *args: P.args, **kwargs: P.kwargs) -> T:
        # Building a call may read images from a disk.
        return await self._sender.send(await asyncio.to_thread(build, *args, **kwargs))

    return method_of(build, method)
