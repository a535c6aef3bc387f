"""Room for blocking calls: the default thread pool of asyncio is as small as the machine."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

THREADS = 64
"""Blocking calls that may wait at once: while Milvus is away, those that wait for it must not keep
the database, the picture files and the health checks waiting too."""


def widen_thread_pool() -> None:
    """Give the running event loop a thread pool for calls that wait rather than compute."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, "blocking"))
