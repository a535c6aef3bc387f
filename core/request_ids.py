"""The id of the request that is being answered, known to all that is done for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_current: ContextVar[str] = ContextVar("request_id", default="")


def current_request_id() -> str:
    """Return the id of the request that this is done for; empty where it is done for none."""
    return _current.get()


@contextmanager
def answering(request_id: str) -> Iterator[None]:
    """Do what is in this block, and all that it starts, for this request."""
    token = _current.set(request_id)
    try:
        yield
    finally:
        _current.reset(token)
