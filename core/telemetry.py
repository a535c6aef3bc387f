"""Request ids and timed stages, for logs, metrics and traces of this process."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from types import TracebackType
from typing import Literal, Self, get_args

_current: ContextVar[str] = ContextVar("request_id", default="")
_NOBODY = nullcontext()


def current_request_id() -> str:
    """Return the id of the current request; empty where there is none."""
    return _current.get()


@contextmanager
def answering(request_id: str) -> Iterator[None]:
    """Run the block, and all tasks that it starts, for this request."""
    token = _current.set(request_id)
    try:
        yield
    finally:
        _current.reset(token)


StageName = Literal[
    "ensemble",
    "encode",
    "caption",
    "queue",
    "preprocess",
    "forward",
    "search",
    "score",
    "keyword",
    "fuse",
    "hydrate",
    "rerank",
]
STAGES: tuple[StageName, ...] = get_args(StageName)

Watch = Callable[[StageName, str], AbstractContextManager[object]]
"""Returns a context manager in which a stage runs, by the names of the stage and its model."""


def _unwatched(_stage: StageName, _model: str) -> AbstractContextManager[object]:
    return _NOBODY


_watch: Watch = _unwatched


def watch_stages(watch: Watch | None) -> None:
    """Run every stage of this process in the context managers that `watch` returns; None ends that."""
    global _watch
    _watch = watch or _unwatched


class Stage:
    """Context manager around one stage; `ms` is its duration, once it has ended."""

    __slots__ = ("_around", "_started", "ms")

    def __init__(self, name: StageName, model: str) -> None:
        self._around = _watch(name, model)
        self._started = 0.0
        self.ms = 0.0

    def __enter__(self) -> Self:
        """Begin."""
        self._around.__enter__()
        self._started = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End; errors go on."""
        self.ms = (time.perf_counter() - self._started) * 1e3
        self._around.__exit__(kind, error, trace)
