"""Ask a server again that fails or is too busy."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from core.errors import FetchFailed
from core.importing import ImportConfig

T = TypeVar("T")


async def retrying(ask: Callable[[], Awaitable[T]], config: ImportConfig) -> T:
    """Ask until there is an answer, with pauses that double, or as long as the server asks for.

    Raises:
        FetchFailed: none of the attempts succeeded; it is the last one's.
    """
    for attempt in range(config.attempts - 1):
        try:
            return await ask()
        except FetchFailed as error:
            # Up to a quarter more, so that many that failed together do not come again together.
            doubled = config.backoff_s * 2**attempt * random.uniform(1, 1.25)
            wanted = doubled if error.retry_after_s is None else error.retry_after_s
            await asyncio.sleep(min(wanted, config.max_backoff_s))
    return await ask()
