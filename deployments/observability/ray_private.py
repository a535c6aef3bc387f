"""Private names of Ray Serve 2.60, and the reason for each. `jobs/runner/cluster.py` holds those of Ray itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ray.serve.context import _get_global_client, _get_serve_request_context, _serve_request_context


def serve_request_id() -> str:
    """Return the request id of Serve's context, which handles carry to other replicas.

    Serve's documentation names this context for reading the id.
    """
    request_id: str = _get_serve_request_context().request_id
    return request_id


@contextmanager
def changed_serve_request(**changes: Any) -> Iterator[None]:
    """Run this block, and all that it starts, in Serve's request context with these fields changed.

    Serve has no public way to set the id: it takes X-Request-ID as it comes. With another
    `_internal_request_id`, Serve does not cancel the calls when the caller of the request goes away.
    """
    token = _serve_request_context.set(replace(_get_serve_request_context(), **changes))
    try:
        yield
    finally:
        _serve_request_context.reset(token)


def serve_http_host() -> str | None:
    """Return the address that Serve listens on, whoever started it.

    No public call tells it to a replica: `serve.status()` leaves it out, and the dashboard may not run.
    """
    host: str | None = _get_global_client().http_config.host
    return host
