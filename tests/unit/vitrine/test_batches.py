"""Streams of products: what a request holds, what is sent again, and what a product that fails costs the others."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from vitrine import AsyncVitrine, BatchSummary, NewProduct, Retries, Unavailable, Vitrine
from vitrine.errors import ServiceError, Unauthenticated

QUICK = Retries(count=2, first_wait_s=0.001)
Operation = dict[str, Any]


def error(kind: str, status: int) -> dict[str, Any]:
    detail = {"type": kind, "message": "some words", "param": None, "request_id": "r1"}
    return {"status": status, "error": detail}


class Service:
    """Takes batches; `outcome` says what becomes of each operation."""

    def __init__(self, outcome: Callable[[Operation], dict[str, Any]] | None = None) -> None:
        self._outcome = outcome or (lambda operation: {"status": 204 if operation["op"] == "delete" else 201})
        self._lock = threading.Lock()
        self.batches: list[list[Operation]] = []
        self.refusals: list[httpx.Response] = []
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            self.requests.append(request)
            if self.refusals:
                return self.refusals.pop(0)
            assert (request.method, request.url.path) == ("POST", "/v1/products:batch")
            assert request.headers["Content-Type"] == "application/x-ndjson"
            batch = [json.loads(line) for line in request.content.splitlines()]
            self.batches.append(batch)
            results = [{"product_id": each["product_id"], **self._outcome(each)} for each in batch]
        return httpx.Response(200, json={"results": results})

    @property
    def operations(self) -> list[Operation]:
        return [each for batch in self.batches for each in batch]


class Client:
    """The same calls, of one client or the other."""

    def __init__(self, kind: type, service: Service) -> None:
        self._kind = kind
        self._service = service

    def __getattr__(self, name: str) -> Callable[..., BatchSummary]:
        def call(values: Any, **options: Any) -> BatchSummary:
            transport = httpx.MockTransport(self._service)
            shop = self._kind("http://service", retries=QUICK, transport=transport)
            answer = getattr(shop, name)(values, **options)
            summary: BatchSummary = asyncio.run(answer) if self._kind is AsyncVitrine else answer
            return summary

        return call


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture(params=[Vitrine, AsyncVitrine])
def shop(request: pytest.FixtureRequest, service: Service) -> Client:
    return Client(request.param, service)


def products(count: int, size: int = 0) -> Iterator[NewProduct]:
    return (NewProduct(f"p{number}", images=[bytes(size)] if size else None) for number in range(count))


def test_every_product_is_sent_once_in_batches_of_bounded_number(shop: Client, service: Service) -> None:
    summary = shop.put_products(products(25), max_operations=10)
    assert sorted(map(len, service.batches)) == [5, 10, 10]
    assert {each["product_id"] for each in service.operations} == {f"p{number}" for number in range(25)}
    assert (summary.created, summary.done, summary.errors) == (25, 25, [])


def test_batches_are_bounded_by_bytes_and_a_large_product_goes_alone(shop: Client, service: Service) -> None:
    large = NewProduct("large", images=[bytes(100_000)])
    shop.put_products([*products(10, size=3000), large, NewProduct("last")], max_bytes=10_000)
    assert [len(batch) for batch in service.batches if batch[0]["product_id"] == "large"] == [1]
    assert max(len(request.content) for request in service.requests) > 100_000
    assert sorted(len(request.content) for request in service.requests)[-2] <= 10_000
    assert len(service.operations) == 12


@pytest.mark.parametrize("kind", [Vitrine, AsyncVitrine])
def test_products_are_read_no_further_ahead_than_what_is_in_flight(kind: type) -> None:
    read, answered = Counter[str](), Counter[str]()

    def endless() -> Iterator[NewProduct]:
        for each in products(200):
            read["products"] += 1
            assert read["products"] - answered["products"] <= 3 * 10 + 10 + 1
            yield each

    def outcome(_: Operation) -> dict[str, Any]:
        answered["products"] += 1
        return {"status": 201}

    Client(kind, Service(outcome)).put_products(endless(), max_operations=10, requests_at_once=3)
    assert read == answered == {"products": 200}


def test_an_asynchronous_source_is_read_too(service: Service) -> None:
    async def source() -> AsyncIterator[NewProduct]:
        for each in products(5):
            yield each

    assert Client(AsyncVitrine, service).put_products(source()).created == 5


def test_an_error_of_the_source_is_the_callers(shop: Client) -> None:
    def broken() -> Iterator[NewProduct]:
        yield NewProduct("p")
        raise LookupError("the shop's own table")

    with pytest.raises(LookupError):
        shop.put_products(broken())


def test_progress_is_reported_after_each_batch(shop: Client) -> None:
    seen: list[int] = []
    shop.put_products(products(30), max_operations=10, on_progress=lambda summary: seen.append(summary.done))
    assert seen == [10, 20, 30]


def test_the_numbers_tell_what_was_created_updated_deleted_and_failed(shop: Client, service: Service) -> None:
    outcomes = {"p0": {"status": 201}, "p1": {"status": 200}, "p2": error("invalid_image", 422)}
    service._outcome = lambda operation: outcomes[operation["product_id"]]
    summary = shop.put_products(products(3))
    assert (summary.created, summary.updated, summary.done) == (1, 1, 3)
    (failed,) = summary.errors
    assert failed.product_id == "p2"
    assert failed.error is not None
    assert failed.error.type == "invalid_image"


def test_patches_and_deletes_are_streamed_too(shop: Client, service: Service) -> None:
    shop.patch_products({"p": {"attributes": {"price": 9, "sale": None}}}.items())
    assert shop.delete_products(f"p{number}" for number in range(2)).deleted == 2
    assert service.operations == [
        {"op": "patch", "product_id": "p", "attributes": {"price": 9, "sale": None}},
        {"op": "delete", "product_id": "p0"},
        {"op": "delete", "product_id": "p1"},
    ]


def test_what_a_product_leaves_out_is_not_sent_as_null(shop: Client, service: Service) -> None:
    shop.put_products([NewProduct("p", "Title", attributes={"a": None}, images=[])])
    expected = {"title": "Title", "description": "", "attributes": {"a": None}, "images": []}
    assert service.operations == [{"op": "put", "product_id": "p", **expected}]


@pytest.mark.parametrize("status", [429, 503])
def test_an_operation_that_did_not_work_just_now_is_sent_again(
    shop: Client, service: Service, status: int
) -> None:
    failures = Counter({"p1": 2, "p2": 99})

    def outcome(operation: Operation) -> dict[str, Any]:
        failures[operation["product_id"]] -= 1
        return error("unavailable", status) if failures[operation["product_id"]] >= 0 else {"status": 201}

    service._outcome = outcome
    summary = shop.put_products(products(3))
    assert [len(batch) for batch in service.batches] == [3, 2, 2]
    assert (summary.created, [each.product_id for each in summary.errors]) == (2, ["p2"])


def test_a_request_that_did_not_work_just_now_is_sent_again(shop: Client, service: Service) -> None:
    service.refusals = [httpx.Response(503, json=error("overloaded", 503)), httpx.Response(429)]
    assert shop.put_products(products(3)).created == 3
    assert len(service.requests) == 3


def test_a_service_that_stays_away_is_an_error(shop: Client, service: Service) -> None:
    service.refusals = [httpx.Response(503)] * 20
    with pytest.raises(Unavailable):
        shop.put_products(products(3))


def test_a_service_that_can_do_nothing_of_a_batch_is_an_error(shop: Client, service: Service) -> None:
    service._outcome = lambda _: error("unavailable", 503)
    with pytest.raises(Unavailable, match="some words"):
        shop.put_products(products(100_000), max_operations=10)
    assert len(service.requests) < 100


def test_an_answer_with_other_than_a_result_for_each_operation_is_an_error(
    shop: Client, service: Service
) -> None:
    service.refusals = [httpx.Response(200, json={"results": []})]
    with pytest.raises(ServiceError, match="0 results came for 3 operations"):
        shop.put_products(products(3))


def test_a_key_that_is_refused_is_an_error_at_once(shop: Client, service: Service) -> None:
    service.refusals = [httpx.Response(401)]
    with pytest.raises(Unauthenticated):
        shop.put_products(products(3))


def test_a_request_that_is_too_large_is_sent_in_halves(shop: Client, service: Service) -> None:
    service.refusals = [httpx.Response(413, json=error("input_too_large", 413))] * 3
    summary = shop.put_products(products(4))
    # 4, 2 and 1 are refused; then come the other of the two, and the other half.
    assert [len(batch) for batch in service.batches] == [1, 2]
    assert (summary.created, [each.product_id for each in summary.errors]) == (3, ["p0"])


def test_retries_are_counted_for_each_operation_not_for_all_of_a_batch(
    shop: Client, service: Service
) -> None:
    failures = Counter({f"p{number}": 2 for number in range(4)})

    def outcome(operation: Operation) -> dict[str, Any]:
        failures[operation["product_id"]] -= 1
        return error("unavailable", 503) if failures[operation["product_id"]] >= 0 else {"status": 201}

    service._outcome = outcome
    service.refusals = [httpx.Response(413, json=error("input_too_large", 413))]
    summary = shop.put_products(products(4))
    assert [len(batch) for batch in service.batches] == [2] * 6
    assert (summary.created, summary.errors) == (4, [])


def test_an_image_by_a_scheme_that_is_neither_a_path_nor_fetched_is_named(shop: Client) -> None:
    summary = shop.put_products([NewProduct("a", images=["file:///tmp/a.png"]), NewProduct("b")])
    assert (summary.created, [each.product_id for each in summary.errors]) == (1, ["a"])
    assert "neither a file nor an http or https URL: 'file:///tmp/a.png'" in str(summary.errors[0].error)


def test_a_product_that_cannot_be_sent_costs_the_others_nothing(shop: Client, tmp_path: Path) -> None:
    missing, surrogate = NewProduct("a", images=[tmp_path / "none.jpg"]), NewProduct("b", title="\ud800")
    infinite, odd = NewProduct("c", attributes={"x": float("inf")}), NewProduct("d", attributes={"x": set()})
    summary = shop.put_products([missing, surrogate, infinite, odd, NewProduct("e")])
    assert (summary.created, [each.product_id for each in summary.errors]) == (1, ["a", "b", "c", "d"])
    assert "none.jpg" in str(summary.errors[0].error)


def test_an_id_that_cannot_be_written_and_a_path_that_cannot_be_cost_the_others_nothing(shop: Client) -> None:
    strange, nul = NewProduct("\ud800"), NewProduct("a", images=["no\0path"])
    summary = shop.put_products([strange, nul, NewProduct("b")])
    assert (summary.created, [each.product_id for each in summary.errors]) == (1, ["\ud800", "a"])


@pytest.mark.parametrize("name", ["op", "product_id"])
def test_a_patch_is_never_another_operation_nor_of_another_product(
    shop: Client, service: Service, name: str
) -> None:
    summary = shop.patch_products([("p", {name: "delete"})])
    assert [each.error.param for each in summary.errors if each.error] == [name]
    assert service.operations == []


@pytest.mark.parametrize("was_answered", [False, True])
def test_what_an_attempt_without_a_known_outcome_has_deleted_counts_as_deleted(
    shop: Client, service: Service, was_answered: bool
) -> None:
    attempts = Counter[str]()
    service.refusals = [] if was_answered else [httpx.Response(503)]

    def outcome(operation: Operation) -> dict[str, Any]:
        attempts[operation["product_id"]] += 1
        if was_answered and attempts[operation["product_id"]] == 1:
            return error("deadline_exceeded", 503)
        return error("not_found", 404)

    service._outcome = outcome
    summary = shop.delete_products(["p", "q"])
    assert (summary.deleted, summary.errors) == (2, [])
    assert [each.status for each in shop.patch_products([("r", {})]).errors] == [404]


def test_deleting_what_never_was_is_an_error(shop: Client, service: Service) -> None:
    service._outcome = lambda _: error("not_found", 404)
    assert [each.status for each in shop.delete_products(["p"]).errors] == [404]


@pytest.mark.parametrize("kind", [Vitrine, AsyncVitrine])
def test_nothing_is_sent_once_the_call_has_ended_with_an_error(kind: type) -> None:
    service = Service(lambda _: error("unavailable", 503))
    transport = httpx.MockTransport(service)
    patient = Retries(count=1000, first_wait_s=0.05, max_wait_s=0.05)

    def broken() -> Iterator[NewProduct]:
        yield from products(3)
        raise LookupError("the shop's own table")

    async def still_running() -> int:
        shop = AsyncVitrine("http://service", retries=patient, transport=transport)
        with pytest.raises(LookupError):
            await shop.put_products(broken(), max_operations=1)
        return len(asyncio.all_tasks()) - 1

    if kind is AsyncVitrine:
        assert asyncio.run(still_running()) == 0
    else:
        with pytest.raises(LookupError):
            kind("http://service", retries=patient, transport=transport).put_products(
                broken(), max_operations=1
            )
        assert [each for each in threading.enumerate() if each.name.startswith("vitrine-batches")] == []


def test_two_puts_of_one_product_are_never_in_flight_together(shop: Client, service: Service) -> None:
    several = [NewProduct("p", title=str(number)) for number in range(9)]
    assert shop.put_products(several).created == 9
    assert [each["title"] for each in service.operations] == [str(number) for number in range(9)]
    assert all(len(batch) == 1 for batch in service.batches)


def test_a_stream_of_nothing_sends_nothing(shop: Client, service: Service) -> None:
    assert shop.put_products([]).done == 0
    assert service.requests == []


def test_the_index_is_waited_for_unless_the_caller_does_not_want_it(shop: Client, service: Service) -> None:
    shop.put_products(products(1))
    shop.put_products(products(1), wait=False)
    assert [dict(request.url.params) for request in service.requests] == [{}, {"wait": "false"}]


@pytest.mark.parametrize("bound", ["max_bytes", "max_operations", "requests_at_once"])
def test_bounds_below_one_are_refused(shop: Client, bound: str) -> None:
    with pytest.raises(ValueError, match=bound):
        shop.put_products(products(1), **{bound: 0})
