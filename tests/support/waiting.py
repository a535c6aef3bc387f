"""Waiting for what comes about in other processes, threads and tasks."""

import asyncio
import time
from collections.abc import Callable


def wait_until(
    condition: Callable[[], object],
    within_s: float,
    what: Callable[[], object] | str = "",
    pause_s: float = 0.1,
) -> None:
    """Return once a condition holds; where it does not in time, the test fails and shows `what`."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, what() if callable(what) else what
        time.sleep(pause_s)


async def until(condition: Callable[[], object], within_s: float = 60) -> None:
    """Return once a condition holds, which tasks of this loop bring about.

    Raises:
        TimeoutError: it does not hold in time.
    """
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)
