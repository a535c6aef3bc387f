"""The id of a request on its way through the deployments: handles of Serve carry it from one to the next.

Serve keeps it in a context of its own, which its documentation names for reading the id; it takes the id
from X-Request-ID as it comes, so ours, which is checked, is put in its place.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from ray.serve.context import _get_serve_request_context, _serve_request_context

from core.request_ids import answering


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
