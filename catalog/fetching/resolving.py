"""From host names to IP addresses."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

Resolver = Callable[[str, int], Awaitable[list[str]]]
"""Gives the IP address literals of a host for a TCP port; raises OSError when there are none."""

_THREADS = 16


class SystemResolver:
    """The resolver of the operating system.

    In threads of its own: a name server that never answers keeps its thread for many seconds, and must
    not keep other blocking calls of the process waiting.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="resolve")

    async def __call__(self, host: str, port: int) -> list[str]:
        """Resolve a host, in the order in which its addresses should be tried."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, _resolve, host, port)
        return list(dict.fromkeys(found))


def _resolve(host: str, port: int) -> list[str]:
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise OSError("the name cannot be written for DNS") from None
    return [str(address[0]) for *_, address in answers]
