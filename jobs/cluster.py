"""The Ray that a job works on: a running one, or one of its own for as long as it takes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from core.errors import Unavailable, VitrineError


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Work on the cluster at `address`, on that of RAY_ADDRESS, or on an own one.

    Raises:
        Unavailable: there is no cluster at the address.
    """
    target = address or os.environ.get("RAY_ADDRESS") or "local"
    options = {"include_dashboard": False} if target == "local" else {}
    try:
        ray.init(address=target, **options)
    except ConnectionError as error:
        raise Unavailable(f"there is no Ray cluster at {target}") from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def own_errors() -> Iterator[None]:
    """Raise an error of ours as it was raised on a worker, instead of Ray's wrapping of it."""
    try:
        yield
    except VitrineError:
        raise
    except Exception as error:
        ours = _ours(error)
        if ours is None:
            raise
        raise ours from error


def _ours(error: BaseException | None) -> VitrineError | None:
    while error is not None:
        for found in (error, getattr(error, "cause", None)):
            if isinstance(found, VitrineError):
                return found
        error = error.__cause__ or error.__context__
    return None
