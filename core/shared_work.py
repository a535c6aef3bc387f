"""Work that several callers wait for, which none of them may end."""

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")


def start_shared(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start work that is done for more than the caller; whoever waits for it shields it from its own end.

    A task inherits the context of whoever starts it: the deadline and the id of a request, and what has Serve
    cancel the calls of a request whose caller goes away. This one begins with an empty context.
    """
    return asyncio.create_task(work, context=Context())
