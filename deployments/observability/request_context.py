"""Context of a request: its id across deployments, and the record for its log line and metrics.

Serve keeps it in a context of its own, which its documentation names for reading the id; it takes the id
from X-Request-ID as it comes, so ours, which is checked, is put in its place.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace

from ray.serve.context import _get_serve_request_context, _serve_request_context

from core.telemetry import answering


@dataclass(slots=True)
class RequestRecord:
    """The models that were asked for, each once and in order, and the type of the error in the answer."""

    models: dict[str, None] = field(default_factory=dict)
    error: str | None = None

    @property
    def model(self) -> str:
        """One word for the models: a request may ask for one, for several, or for none."""
        return "several" if len(self.models) > 1 else next(iter(self.models), "none")


_record: ContextVar[RequestRecord | None] = ContextVar("request_record", default=None)


@contextmanager
def recording() -> Iterator[RequestRecord]:
    """Gather in one record what is noted in this block and in all that it starts."""
    record = RequestRecord()
    token = _record.set(record)
    try:
        yield record
    finally:
        _record.reset(token)


def note_model(name: str) -> None:
    """Note a model that the request asks for; only names of the configuration, so that there are few."""
    if (record := _record.get()) is not None:
        record.models[name] = None


def note_error(kind: str) -> None:
    """Note the type of the error that is answered."""
    if (record := _record.get()) is not None:
        record.error = kind


@contextmanager
def as_request(request_id: str) -> Iterator[None]:
    """Do what is in this block, and what it has other replicas do, under this id."""
    token = _serve_request_context.set(replace(_get_serve_request_context(), request_id=request_id))
    try:
        with answering(request_id):
            yield
    finally:
        _serve_request_context.reset(token)


@contextmanager
def apart_from_request() -> Iterator[None]:
    """Do what is in this block, and all that it starts, under the id of the request and yet not as a part of it.

    Serve cancels the calls of a request whose caller goes away.
    """
    own = replace(_get_serve_request_context(), _internal_request_id=new_request_id())
    token = _serve_request_context.set(own)
    try:
        yield
    finally:
        _serve_request_context.reset(token)


@contextmanager
def as_request_of_caller() -> Iterator[None]:
    """Do what is in this block for the request that the caller of this replica has in hand."""
    with answering(_get_serve_request_context().request_id):
        yield


def id_headers(request_id: str) -> dict[str, str]:
    """The header that tells the caller the id; empty where Serve's own server echoes the same one."""
    if _get_serve_request_context().request_id == request_id:
        return {}
    return {"X-Request-ID": request_id}


def new_request_id(of: str = "") -> str:
    """Make an id; `of` says what it is for, where no caller has asked."""
    return f"{of}-{uuid.uuid4().hex}" if of else uuid.uuid4().hex
