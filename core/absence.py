"""Members that did not answer in time: others wait for them, searches do not."""

import asyncio
from collections.abc import Awaitable, Callable

from core.errors import expected
from core.shared_work import start_shared

PAUSE_S = 0.5
"""Between two attempts to reach a member that refuses at once."""


class Absence:
    """Whether a member is away, found out beside the searches.

    A circuit breaker (Nygard, Release It!, 2007): one search that waited for the member in vain is enough. Until
    the member answers, no other waits for it, while one question at a time goes on to it, which also wakes a
    model that was scaled to zero. When nobody has wanted the member since the last question, that ends too.
    """

    def __init__(self, ask: Callable[[], Awaitable[object]]) -> None:
        """`ask` returns when the member answers, and raises a VitrineError when it does not."""
        self._ask = ask
        self._asking: asyncio.Task[None] | None = None
        self._wanted = False

    def lasts(self) -> bool:
        """Tell a search that wants the member whether it is away."""
        self._wanted = True
        return self._asking is not None and not self._asking.done()

    def begin(self) -> None:
        """Note that a search waited in vain."""
        if self._asking is None or self._asking.done():
            self._asking = start_shared(self._ask_until_answered())

    async def _ask_until_answered(self) -> None:
        self._wanted = True
        while self._wanted:
            self._wanted = False
            try:
                await self._ask()
                return
            except Exception as error:
                expected(error, "asking whether a member is back")
                await asyncio.sleep(PAUSE_S)
