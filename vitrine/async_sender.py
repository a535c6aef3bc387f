"""Sending calls, and sending them again: for asyncio."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import httpx

from vitrine.call import Call
from vitrine.errors import ServiceError
from vitrine.sender import unreachable
from vitrine.settings import Settings
from vitrine.signatures import method_of

T = TypeVar("T")
P = ParamSpec("P")


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


def sent(build: Callable[P, Call[T]]) -> Callable[Concatenate[Any, P], Awaitable[T]]:
    """Make a method of a call: the same arguments, and what the service answers."""

    async def method(self: AsyncSending, /, *args: P.args, **kwargs: P.kwargs) -> T:
        # Building a call may read pictures from a disk.
        return await self._sender.send(await asyncio.to_thread(build, *args, **kwargs))

    return method_of(build, method)
