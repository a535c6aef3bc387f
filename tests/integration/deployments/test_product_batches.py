"""Batches of operations on products, and patches: each operation succeeds or fails alone."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from catalog.fetching.fetcher import Fetcher
from catalog.opening import Catalog
from catalog.products import Operation, PutProduct
from core.errors import InvalidInput, Unavailable, VitrineError
from deployments.http.routes import batches
from deployments.services.products import ProductWrites, Written
from tests.support.image_files import b64, png
from tests.support.local_service import open_fetching
from tests.support.servers import hostile_server

pytestmark = pytest.mark.anyio
BATCH = "/v1/products:batch"
NDJSON = {"Content-Type": "application/x-ndjson"}
RED, BLUE = b64(png("red")), b64(png("blue"))


def put(product_id: str, **fields: Any) -> dict[str, Any]:
    return {"op": "put", "product_id": product_id, **fields}


def patch(product_id: str, **fields: Any) -> dict[str, Any]:
    return {"op": "patch", "product_id": product_id, **fields}


def delete(product_id: str) -> dict[str, Any]:
    return {"op": "delete", "product_id": product_id}


async def send(client: httpx.AsyncClient, *operations: Any, **options: Any) -> list[dict[str, Any]]:
    answer = await client.post(BATCH, json={"operations": operations}, **options)
    assert answer.status_code == 200, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


async def send_lines(client: httpx.AsyncClient, content: bytes) -> list[dict[str, Any]]:
    answer = await client.post(BATCH, content=content, headers=NDJSON)
    assert answer.status_code == 200, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


def statuses(results: Sequence[dict[str, Any]]) -> list[int]:
    return [each["status"] for each in results]


def messages(results: Sequence[dict[str, Any]]) -> list[str]:
    return [each["error"]["message"] for each in results if "error" in each]


async def refusal(client: httpx.AsyncClient, **body: Any) -> tuple[int, str, str]:
    answer = await client.post(BATCH, **body)
    error = answer.json()["error"]
    return answer.status_code, error["param"], error["message"]


async def test_products_are_put_patched_and_deleted_in_one_request(client: httpx.AsyncClient) -> None:
    results = await send(
        client,
        put("new", title="New", images=[RED, f"data:image/png;base64,{BLUE}"]),
        patch("new", attributes={"price": 9}),
        put("other"),
        delete("other"),
    )
    assert results == [
        {"product_id": "new", "status": 201, "index": {"first": "indexed"}},
        {"product_id": "new", "status": 200, "index": {"first": "indexed"}},
        {"product_id": "other", "status": 201, "index": {"first": "indexed"}},
        {"product_id": "other", "status": 204},
    ]
    stored = (await client.get("/v1/products/new")).json()
    assert (stored["title"], stored["attributes"], len(stored["images"])) == ("New", {"price": 9}, 2)
    assert (await client.get("/v1/products/other")).status_code == 404


async def test_each_operation_fails_alone_and_names_what_is_wrong(client: httpx.AsyncClient) -> None:
    results = await send(
        client,
        put("good"),
        3,
        {"product_id": "a"},
        {"op": "upsert", "product_id": "a"},
        {"op": "put"},
        put("a/b"),
        put("a", images=["neither URL nor base64!"]),
        put("a", images=[RED, b64(b"no image")]),
        put("a", images=RED),
        put("a", titel="x"),
        put("a", title=3),
        put("a", title="\0"),
        put("a", attributes={"x": {"y": 1}}),
        put("a", images=[RED] * 999),
        patch("good", images=[RED]),
        patch("good", titel="x"),
        patch("missing", title="x"),
        delete("missing"),
        {**delete("good"), "title": "x"},
        put("last"),
    )
    assert statuses(results) == [201, *[422] * 12, 413, 422, 422, 404, 404, 422, 201]
    assert [each.get("error", {}).get("param") for each in results] == [
        None, "op", "op", "op", "product_id", "product_id", "images[0]", "images[1]", "images", "titel", "title",
        "title", "attributes.x", "images", "images", "titel", None, None, "title", None,
    ]  # fmt: skip
    assert "put, patch or delete" in messages(results)[0]
    assert "replace them by a put" in messages(results)[13]
    assert results[5]["product_id"] == "a/b"
    assert results[1]["product_id"] is None
    listed = (await client.get("/v1/products")).json()
    assert [each["product_id"] for each in listed] == ["good", "last"]


async def test_a_line_that_is_no_json_costs_the_other_lines_nothing(client: httpx.AsyncClient) -> None:
    lines = [
        b"\r",
        json.dumps(put("a")).encode() + b"\r",
        b"",
        b'{"op": "put", "product_id": "b"',
        b'{"op": "put", "product_id": "c", "title": "\xff"}',
        b'{"op": "put", "product_id": "d", "title": "\\ud800"}',
        b'{"op": "put", "product_id": "e", "attributes": {"x": NaN}}',
        b"   \t ",
        b"[" * 100_000,
        json.dumps(put("f", title="x" * 2_000_000)).encode(),
        json.dumps(delete("a")).encode(),
    ]
    results = await send_lines(client, b"\n".join(lines))
    assert statuses(results) == [201, 422, 422, 422, 422, 422, 422, 204]
    assert [each["product_id"] for each in results] == ["a", None, None, None, None, None, "f", "a"]


async def test_a_byte_order_mark_before_the_first_line_is_no_part_of_it(client: httpx.AsyncClient) -> None:
    assert statuses(await send_lines(client, b"\xef\xbb\xbf" + json.dumps(put("a")).encode())) == [201]


@pytest.mark.parametrize(
    ("body", "status", "param", "message"),
    [
        ({"json": {"operations": []}}, 422, "operations", "1 to 1000"),
        ({"content": b"\r\n\n  \n", "headers": NDJSON}, 422, "operations", "1 to 1000"),
        ({"content": b"", "headers": NDJSON}, 422, "operations", "1 to 1000"),
        ({"json": {"operations": [delete("p")] * 1001}}, 422, "operations", "at most 1000"),
        ({"content": b"0\n" * 1001, "headers": NDJSON}, 422, "operations", "at most 1000"),
        ({"json": {"operations": {}}}, 422, "operations", "list"),
        ({"json": [delete("p")]}, 422, "body", "one field"),
        ({"json": {"operations": [], "more": 1}}, 422, "body", "one field"),
        ({"json": {}}, 422, "body", "one field"),
        ({"content": b"{"}, 422, "body", "not valid JSON"),
        ({"content": b'{"operations": ["\\ud800"]}'}, 422, "body", "not valid JSON"),
        ({"content": b"a", "headers": {"Content-Type": "text/csv"}}, 415, "Content-Type", "x-ndjson"),
        ({"files": {"images": b"a"}}, 415, "Content-Type", "x-ndjson"),
        ({"json": {"operations": [delete("p")]}, "params": {"wait": "maybe"}}, 422, "wait", "bool"),
        ({"json": {"operations": [delete("p")]}, "params": {"later": "1"}}, 422, "later", "unknown"),
    ],
)
async def test_what_is_wrong_as_a_whole_is_one_error(
    client: httpx.AsyncClient, body: dict[str, Any], status: int, param: str, message: str
) -> None:
    answered = await refusal(client, **body)
    assert answered[:2] == (status, param)
    assert message in answered[2]


async def test_a_thousand_operations_are_done(client: httpx.AsyncClient, catalog: Catalog) -> None:
    results = await send(client, *(put(f"p{number:03}") for number in range(1000)))
    assert statuses(results) == [201] * 1000
    assert catalog.products.counts() == (1000, 0)


async def test_operations_on_one_product_apply_in_order_over_transactions_too(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "_OPERATIONS_AT_ONCE", 2)
    titles = [f"{number}" for number in range(25)]
    results = await send(
        client, *(put("p", title=title) for title in titles), delete("p"), put("p", title="at last")
    )
    assert statuses(results) == [201, *[200] * 24, 204, 201]
    assert (await client.get("/v1/products/p")).json()["title"] == "at last"


async def test_images_behind_urls_are_fetched_and_one_that_is_missing_fails_alone(
    client: httpx.AsyncClient, app: FastAPI
) -> None:
    async with hostile_server() as server:
        open_fetching(app, server)
        there, missing = server.answer("/a.png", png("red")), server.answer("/b.png", status="404 Not Found")
        results = await send(
            client,
            put("p", images=[BLUE, missing]),
            put("p", title="first", images=[there, BLUE]),
            put("p", title="second"),
            put("q", images=["http://10.0.0.1/a.png"]),
        )
    assert statuses(results) == [422, 201, 200, 422]
    assert [each["error"]["param"] for each in results if "error" in each] == ["images[1]", "images[0]"]
    stored = (await client.get("/v1/products/p")).json()
    assert (stored["title"], len(stored["images"])) == ("second", 2)


class Writes:
    """Stands before the service's writes, and notes their sizes."""

    def __init__(self, app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
        self._write = app.state.services.writes.write
        self.sizes: list[int] = []
        self.bytes: list[int] = []
        self.waits: list[bool] = []
        self.works = 10**6
        self.failure: BaseException = Unavailable("the catalog does not answer")
        monkeypatch.setattr(ProductWrites, "write", staticmethod(self.write))

    async def write(self, operations: Sequence[Operation], wait: bool = True) -> list[Written | VitrineError]:
        if len(self.sizes) == self.works:
            if isinstance(self.failure, asyncio.CancelledError):
                await asyncio.Event().wait()
            raise self.failure
        self.sizes.append(len(operations))
        self.waits.append(wait)
        images = [image for each in operations if isinstance(each, PutProduct) for image in each.images or ()]
        self.bytes.append(sum(len(image.data) for image in images))
        written: list[Written | VitrineError] = await self._write(operations, wait=wait)
        return written


@pytest.fixture
def writes(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> Writes:
    return Writes(app, monkeypatch)


async def test_a_catalog_that_goes_away_halfway_leaves_what_is_done_done(
    client: httpx.AsyncClient, catalog: Catalog, writes: Writes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "_OPERATIONS_AT_ONCE", 2)
    writes.works = 2
    results = await send(client, *(put(f"p{number}") for number in range(5)), "none", *map(put, "qrst"))
    assert statuses(results) == [201] * 4 + [503, 422] + [503] * 4
    assert {each["error"]["type"] for each in results if each["status"] == 503} == {"unavailable"}
    assert catalog.products.counts()[0] == 4


async def test_a_transaction_that_fails_otherwise_does_not_end_the_batch(
    client: httpx.AsyncClient, writes: Writes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "_OPERATIONS_AT_ONCE", 1)
    monkeypatch.setattr(batches, "_TRANSACTIONS_AT_ONCE", 1)
    writes.works, writes.failure = 1, InvalidInput("not this")
    results = await send(client, *map(put, "abc"))
    assert statuses(results) == [201, 422, 422]


async def test_what_is_not_done_in_time_is_said_before_the_deadline(
    client: httpx.AsyncClient, writes: Writes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "_OPERATIONS_AT_ONCE", 1)
    monkeypatch.setattr(batches, "_TRANSACTIONS_AT_ONCE", 1)
    writes.works, writes.failure = 2, asyncio.CancelledError()
    results = await send(client, *map(put, "abcd"), headers={"X-Request-Timeout-Seconds": "2"})
    assert statuses(results) == [201, 201, 503, 503]
    assert {each["error"]["type"] for each in results[2:]} == {"deadline_exceeded"}


async def test_transactions_are_bounded_by_the_bytes_of_images(
    client: httpx.AsyncClient, writes: Writes, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(png("red"))
    monkeypatch.setattr(batches, "MAX_ENCODE_BYTES", 3 * size)
    results = await send(
        client, *(put(f"p{number}", images=[RED]) for number in range(8)), put("z", images=[RED] * 4)
    )
    assert statuses(results) == [201] * 9
    assert sorted(writes.bytes) == [2 * size, 3 * size, 3 * size, 4 * size]


@pytest.mark.parametrize(("files", "most"), [(1, 4), (2, 2), (9, 1)])
async def test_images_are_read_ahead_within_a_bound_in_bytes(
    client: httpx.AsyncClient, app: FastAPI, monkeypatch: pytest.MonkeyPatch, files: int, most: int
) -> None:
    each = app.state.services.fetcher.most_bytes(1)
    monkeypatch.setattr(batches, "_READ_AHEAD_BYTES", 4 * each)
    monkeypatch.setattr(Fetcher, "most_bytes", lambda _, urls: urls * each)
    in_work = [0]

    async def read(_service: Any, product_id: str, *_: Any) -> PutProduct:
        in_work.append(in_work[-1] + 1)
        for _turn in range(10):
            await asyncio.sleep(0)
        in_work.append(in_work[-1] - 1)
        return PutProduct(product_id, "", "", {}, None)

    monkeypatch.setattr(batches, "put_operation", read)
    images = [f"https://shop.test/{number}.png" for number in range(files)]
    results = await send(client, *(put(f"p{number}", images=images) for number in range(20)))
    assert statuses(results) == [201] * 20
    assert max(in_work) == most


@pytest.mark.parametrize("image", ["file:///tmp/a.png", "FTP://shop.test/a.png", "s3://bucket/a.png"])
async def test_an_image_by_another_scheme_is_refused_with_those_that_are_taken(
    client: httpx.AsyncClient, image: str
) -> None:
    (result,) = await send(client, put("p", images=[image]))
    alone = await client.put("/v1/products/p", json={"images": [image]})
    for status, error in (
        (result["status"], result["error"]),
        (alone.status_code, alone.json()["error"]),
    ):
        assert (status, error["param"]) == (422, "images[0]")
        assert error["message"] == (
            "only http and https URLs are fetched; send such a URL, a data URI or base64"
        )


async def test_a_replica_works_on_a_bounded_number_of_batches(
    client: httpx.AsyncClient, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.state.services = replace(app.state.services, batches=asyncio.Semaphore(1))
    write, in_work, most = app.state.services.writes.write, 0, 0

    async def note(operations: Sequence[Operation], wait: bool) -> list[Written | VitrineError]:
        nonlocal in_work, most
        in_work += 1
        most = max(most, in_work)
        try:
            written: list[Written | VitrineError] = await write(operations, wait)
            return written
        finally:
            in_work -= 1

    monkeypatch.setattr(ProductWrites, "write", staticmethod(note))
    answers = await asyncio.gather(*(send(client, put(f"p{number}", images=[RED])) for number in range(5)))
    assert [statuses(each) for each in answers] == [[201]] * 5
    assert most == 1


async def test_a_transaction_has_at_most_a_hundred_operations(
    client: httpx.AsyncClient, writes: Writes
) -> None:
    await send(client, *(put(f"p{number}") for number in range(250)))
    assert sorted(writes.sizes) == [50, 100, 100]


@pytest.mark.parametrize("prefer", ["respond-async", "wait=10, Respond-Async; x=1"])
async def test_a_caller_who_does_not_want_to_wait_is_answered_when_it_is_durable(
    client: httpx.AsyncClient, writes: Writes, prefer: str
) -> None:
    body, operations = {"images": [RED]}, {"operations": [put("b", images=[BLUE])]}
    calls = [("PUT", "/v1/products/a", body), ("PATCH", "/v1/products/a", {}), ("POST", BATCH, operations)]
    for method, path, content in calls:
        for options in ({"headers": {"Prefer": prefer}}, {"params": {"wait": "false"}}, {}):
            answer = await client.request(method, path, json=content, **options)
            assert answer.is_success, answer.text
            applied = "respond-async" if "headers" in options else None
            assert answer.headers.get("Preference-Applied") == applied
    assert writes.waits == [False, False, True] * 3


async def test_a_patch_changes_what_it_names(client: httpx.AsyncClient) -> None:
    body = {"title": "T", "description": "D", "attributes": {"price": 1, "sale": True}, "images": [RED]}
    put_answer = (await client.put("/v1/products/p", json=body)).json()["product"]
    merge_patch = {"Content-Type": "application/merge-patch+json"}
    answer = await client.patch(
        "/v1/products/p",
        content=json.dumps({"attributes": {"price": 2, "sale": None, "color": "red"}}),
        headers=merge_patch,
    )
    product = answer.json()["product"]
    assert (answer.status_code, answer.json()["created"]) == (200, False)
    assert (product["title"], product["description"]) == ("T", "D")
    assert product["attributes"] == {"price": 2, "color": "red"}
    image_ids = [[image["image_id"] for image in each["images"]] for each in (product, put_answer)]
    assert image_ids[0] == image_ids[1]
    emptied = await client.patch("/v1/products/p", json={"title": None, "attributes": None})
    assert emptied.json()["product"]["title"] == ""
    assert emptied.json()["product"]["attributes"] == {}
    unchanged = await client.patch("/v1/products/p", json={})
    assert unchanged.json()["product"] == emptied.json()["product"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"images": []}, "images"),
        ({"images": None}, "images"),
        ({"price": 3}, "price"),
        ({"title": 3}, "title"),
        ({"attributes": []}, "attributes"),
        ({"attributes": {"x": {"y": 1}}}, "attributes.x"),
        ({"title": "x" * 501}, "title"),
        ([], "body"),
    ],
)
async def test_a_patch_that_cannot_be_is_refused(client: httpx.AsyncClient, body: Any, param: str) -> None:
    await client.put("/v1/products/p", json={"title": "as it was"})
    answer = await client.patch("/v1/products/p", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, param)
    assert (await client.get("/v1/products/p")).json()["title"] == "as it was"


async def test_a_patch_of_no_product_is_not_found(client: httpx.AsyncClient) -> None:
    assert (await client.patch("/v1/products/none", json={"title": "x"})).status_code == 404
    assert (await client.patch("/v1/products/a%0Ab", json={"title": "x"})).status_code == 404


async def test_a_key_that_may_only_read_can_neither_patch_nor_write_batches(
    client: httpx.AsyncClient,
) -> None:
    admin = (await client.post("/v1/keys", json={"name": "a", "scopes": ["admin"]})).json()["key"]
    client.headers["Authorization"] = f"Bearer {admin}"
    reader = (await client.post("/v1/keys", json={"name": "r", "scopes": ["read"]})).json()["key"]
    client.headers["Authorization"] = f"Bearer {reader}"
    assert (await client.patch("/v1/products/p", content=b"{")).status_code == 403
    assert (await client.post(BATCH, content=b"{")).status_code == 403
