"""Threads for blocking calls: the default pool of asyncio is as small as the machine, and is shared by all."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")

THREADS = 64
"""Blocking calls that may wait at once: while Milvus is away, those that wait for it must not keep
the database, the picture files and the health checks waiting too."""


def widen_thread_pool() -> None:
    """Give the running event loop a thread pool for calls that wait rather than compute."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, "blocking"))


DECODERS = ThreadPoolExecutor(min(8, os.cpu_count() or 1), "decode")
"""Decode images. Apart, as they wait for each other's pixels: those that wait for I/O must not wait for them."""
BODIES = ThreadPoolExecutor(2, "bodies")
"""Read large bodies, which holds the interpreter's lock: more at once would only keep the event loop waiting."""


async def run_in(pool: ThreadPoolExecutor, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do as `asyncio.to_thread` does in a pool that bounds how much is done at once.

    What has not begun when the caller goes is never done.
    """
    work = partial(copy_context().run, function, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(pool, work)
