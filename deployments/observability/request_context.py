"""Context of a request: its id across deployments, and the record for its log line and metrics.

Serve takes the id from X-Request-ID as it comes. Ours, which is checked, replaces it in Serve's context. For that
this module holds private names of Ray Serve 2.60; `jobs/runner/cluster.py` holds those of Ray itself.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

from ray.serve.context import _get_global_client, _get_serve_request_context, _serve_request_context

from core.telemetry import answering


@dataclass(slots=True)
class RequestRecord:
    """The requested models, each once and in order, and the type of the answer's error."""

    models: dict[str, None] = field(default_factory=dict)
    error: str | None = None

    @property
    def model(self) -> str:
        """Return the one model, `several`, or `none`."""
        return "several" if len(self.models) > 1 else next(iter(self.models), "none")


_record: ContextVar[RequestRecord | None] = ContextVar("request_record", default=None)


@contextmanager
def recording() -> Iterator[RequestRecord]:
    """Collect in one record what this block, and all that it starts, notes."""
    record = RequestRecord()
    token = _record.set(record)
    try:
        yield record
    finally:
        _record.reset(token)


def note_model(name: str) -> None:
    """Note a model that the request asks for. Pass configured names only: each makes a metric label."""
    if (record := _record.get()) is not None:
        record.models[name] = None


def note_error(kind: str) -> None:
    """Note the type of the answer's error."""
    if (record := _record.get()) is not None:
        record.error = kind


@contextmanager
def as_request(request_id: str) -> Iterator[None]:
    """Run this block, and the calls of other replicas in it, under this request id."""
    with changed_serve_request(request_id=request_id), answering(request_id):
        yield


@contextmanager
def apart_from_request() -> Iterator[None]:
    """Run this block under the request's id, but let it go on when the caller goes away."""
    with changed_serve_request(_internal_request_id=new_request_id()):
        yield


@contextmanager
def as_request_of_caller() -> Iterator[None]:
    """Run this block for the request that the calling replica answers."""
    with answering(serve_request_id()):
        yield


def id_headers(request_id: str) -> dict[str, str]:
    """Return the header with the id for the answer; empty where Serve's own server adds the same one."""
    return {} if serve_request_id() == request_id else {"X-Request-ID": request_id}


def new_request_id(of: str = "") -> str:
    """Make an id; `of` is a prefix for work that no caller has asked for."""
    return f"{of}-{uuid.uuid4().hex}" if of else uuid.uuid4().hex


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
