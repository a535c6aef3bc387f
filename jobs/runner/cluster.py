"""Ray for a job: a running cluster, or one that lives as long as the job."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import ray
from ray._private import parameter, ray_constants, services

from core.errors import Unavailable, VitrineError
from core.tcp_ports import free_port

_AGENT_PORTS = (
    "dashboard_agent_listen_port",
    "metrics_agent_port",
    "metrics_export_port",
    "runtime_env_agent_port",
)


def start_ray(**options: Any) -> Any:
    """Start a Ray cluster on this machine, with `options` of `ray.init`; returns its context."""
    with agent_ports() as ports:
        return ray.init(address="local", _metrics_export_port=ports["metrics_export_port"], **options)


@contextmanager
def agent_ports() -> Iterator[dict[str, int]]:
    """Assign ports to the agents of a node that starts in the block; yields them by name.

    Agents that choose ports themselves have 15 s each, whatever is configured; then the raylet aborts (Ray 2.60),
    as it does where two nodes start at once on few cores. `ray.init` has no options for these ports, and no start
    of a node passes that of the dashboard's agent to the raylet.
    """
    ports = {name: free_port() for name in _AGENT_PORTS}
    params, start = parameter.RayParams, services.start_ray_process

    def started(command: list[str], process_type: str, *args: Any, **options: Any) -> Any:
        if process_type == ray_constants.PROCESS_TYPE_RAYLET:
            command = [*command, f"--dashboard_agent_listen_port={ports['dashboard_agent_listen_port']}"]
        return start(command, process_type, *args, **options)

    # No cluster that starts here has a cloud to ask for nodes, and the autoscaler's process takes 50 MB.
    parameter.RayParams, services.start_ray_process = partial(params, no_monitor=True, **ports), started
    try:
        yield ports
    finally:
        parameter.RayParams, services.start_ray_process = params, start


@contextmanager
def connected(address: str | None, node_kinds: Iterable[str] = ()) -> Iterator[None]:
    """Connect to the cluster at `address` or RAY_ADDRESS, or start one for the block, which is of all `node_kinds`.

    Raises:
        Unavailable: there is no cluster at the address.
    """
    target = address or os.environ.get("RAY_ADDRESS") or "local"
    try:
        if target == "local":
            start_ray(include_dashboard=False, resources=dict.fromkeys(node_kinds, 1.0))
        else:
            ray.init(address=target)
    except ConnectionError as error:
        raise Unavailable(f"there is no Ray cluster at {target}") from error
    try:
        yield
    finally:
        ray.shutdown()


def run_task(resources: Mapping[str, Any], function: Callable[..., Any], *args: Any) -> Any:
    """Run a function in a Ray task with these resources, such as those of one copy of a model."""
    task = ray.remote(max_retries=1, **resources)(function)
    with own_errors():
        return ray.get(task.remote(*args))


@contextmanager
def own_errors() -> Iterator[None]:
    """Unwrap errors of ours that Ray wraps on their way from a worker."""
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
