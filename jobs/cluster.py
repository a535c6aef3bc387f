"""The Ray that a job works on: a running one, or one of its own for as long as it takes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import ray
from ray._private import parameter

from core.errors import Unavailable, VitrineError
from core.tcp_ports import free_port

AGENT_PORTS = ("dashboard_agent_listen_port", "metrics_agent_port", "runtime_env_agent_port")
"""Ports of Ray's agents that `ray start` has options for, and `ray.init` has none (2.60)."""


def start_ray(**options: Any) -> Any:
    """Start a Ray of its own on this machine, with `options` of `ray.init`, whose context it returns.

    Its agents are given their ports. Where they find ones by themselves, the raylet waits 15 s for each, whatever
    is configured, and aborts when it has taken longer (2.60), as it does where two start at once on few cores.
    """
    given = parameter.RayParams
    parameter.RayParams = partial(given, **{name: free_port() for name in AGENT_PORTS})
    try:
        return ray.init(address="local", _metrics_export_port=free_port(), **options)
    finally:
        parameter.RayParams = given


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Work on the cluster at `address`, on that of RAY_ADDRESS, or on an own one.

    Raises:
        Unavailable: there is no cluster at the address.
    """
    target = address or os.environ.get("RAY_ADDRESS") or "local"
    try:
        if target == "local":
            start_ray(include_dashboard=False)
        else:
            ray.init(address=target)
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
