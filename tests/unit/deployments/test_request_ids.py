"""The id of a request: in Serve's context for its handles, in ours for all else, and answered once."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from ray.serve.context import _get_serve_request_context, _serve_request_context

from core.telemetry import current_request_id
from deployments.observability.telemetry import (
    as_request,
    as_request_of_caller,
    id_headers,
    new_request_id,
)


@contextmanager
def in_serve(request_id: str) -> Iterator[None]:
    """Be a replica that Serve has called for a request."""
    context = replace(_get_serve_request_context(), request_id=request_id, route="/v1/search")
    token = _serve_request_context.set(context)
    yield
    _serve_request_context.reset(token)


def test_an_id_reaches_handles_and_stores_for_the_time_of_the_request() -> None:
    with as_request("shop-17"):
        assert _get_serve_request_context().request_id == current_request_id() == "shop-17"
    assert _get_serve_request_context().request_id == current_request_id() == ""


def test_the_rest_of_what_serve_knows_stays() -> None:
    with in_serve("not a clean id"), as_request("shop-17"):
        assert _get_serve_request_context().route == "/v1/search"
        assert _get_serve_request_context().request_id == "shop-17"


def test_a_replica_works_for_the_request_of_its_caller() -> None:
    with in_serve("shop-17"), as_request_of_caller():
        assert current_request_id() == "shop-17"


def test_the_caller_learns_its_id_once() -> None:
    assert id_headers("shop-17") == {"X-Request-ID": "shop-17"}
    with in_serve("shop-17"):
        assert id_headers("shop-17") == {}, "Serve's server echoes it"
        assert id_headers("another") == {"X-Request-ID": "another"}


def test_work_that_nobody_asked_for_has_ids_that_say_what_it_is() -> None:
    assert new_request_id("repair").startswith("repair-")
    assert len({new_request_id() for _ in range(3)}) == 3
