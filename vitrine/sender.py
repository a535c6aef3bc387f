"""Sending calls, and sending them again: blocking."""

import time
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import httpx

from vitrine.call import Call
from vitrine.errors import ServiceError, Unreachable
from vitrine.settings import Settings
from vitrine.signatures import method_of

T = TypeVar("T")
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
