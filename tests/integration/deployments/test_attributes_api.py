"""Attributes that the page offers as filters, and gaps that it shows."""

import asyncio
import threading
from dataclasses import replace
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI

from catalog.products import SqlProducts
from core.errors import InvalidImage
from deployments.services.products import MAX_ATTRIBUTES, MAX_VALUES, AttributeSummaries, summarize
from tests.support.documented_service import b64, image

pytestmark = pytest.mark.anyio


async def put(client: httpx.AsyncClient, product_id: str, color: str, **attributes: Any) -> dict[str, Any]:
    body = {"attributes": attributes, "images": [b64(image(color))]}
    answer = await client.put(f"/v1/products/{product_id}", json=body)
    assert answer.is_success, answer.text
    content: dict[str, Any] = answer.json()
    return content


async def test_attributes_are_summed_up(client: httpx.AsyncClient) -> None:
    await put(client, "a", "red", brand="Elm", price=10, sizes=["s", "m"], in_stock=True)
    await put(client, "b", "blue", brand="Elm", price=2.5, sizes=["m"], in_stock=False)
    answer = (await client.get("/v1/attributes")).json()
    assert answer["products_read"] == 2
    found = {each["name"]: each for each in answer["attributes"]}
    assert found["brand"]["values"] == [{"value": "Elm", "products": 2}]
    assert found["sizes"]["values"] == [{"value": "m", "products": 2}, {"value": "s", "products": 1}]
    assert (found["price"]["minimum"], found["price"]["maximum"]) == (2.5, 10)
    assert {each["value"] for each in found["in_stock"]["values"]} == {True, False}


async def test_every_value_that_is_offered_is_one_to_filter_by(client: httpx.AsyncClient) -> None:
    await put(client, "a", "red", brand="Elm", sizes=["s", 3], in_stock=True)
    for attribute in (await client.get("/v1/attributes")).json()["attributes"]:
        for each in attribute["values"]:
            body = {"query": "red", "filter": {attribute["name"]: [each["value"]]}}
            assert len((await client.post("/v1/search", json=body)).json()["results"]) == 1


def test_a_catalog_of_many_names_and_values_gives_a_short_answer() -> None:
    products = [{f"n{i}": f"v{i}", "id": f"p{i}", "text": "x" * 500, "deep": {"a": 1}} for i in range(200)]
    summary = summarize(products)
    assert summary.products_read == 200
    assert len(summary.attributes) == MAX_ATTRIBUTES
    assert summary.attributes[0].name == "id"
    assert {"text", "deep"}.isdisjoint(each.name for each in summary.attributes)


async def test_at_most_so_many_values_are_shown(client: httpx.AsyncClient) -> None:
    await put(client, "a", "red", tags=[f"t{i:03}" for i in range(MAX_VALUES + 5)])
    (tags,) = (await client.get("/v1/attributes")).json()["attributes"]
    assert (len(tags["values"]), tags["more_values"]) == (MAX_VALUES, True)


async def test_gaps_name_images_and_reasons(app: FastAPI, client: httpx.AsyncClient) -> None:
    broken = (await put(client, "a", "red"))["product"]["images"][0]["image_id"]
    catalog = app.state.services.catalog
    (info,) = catalog.ledger.versions()
    url = f"/v1/models/first/versions/{info.fingerprint}/gaps"
    assert (await client.get(url)).json() == {"collection": info.collection, "missing": [], "failed": []}
    catalog.ledger.open(info.collection, catalog.ledger.items("a"))
    assert [each["image_id"] for each in (await client.get(url)).json()["missing"]] == [broken]
    catalog.ledger.fail(info.collection, [(catalog.ledger.items("a")[0], InvalidImage("cut off"))])
    (failed,) = (await client.get(url)).json()["failed"]
    assert (failed["image_id"], failed["product_id"], failed["error"]) == (
        broken,
        "a",
        "InvalidImage: cut off",
    )


async def test_gaps_are_those_of_the_collection_with_the_indexed_attributes_of_the_service(
    app: FastAPI, client: httpx.AsyncClient
) -> None:
    await put(client, "a", "red")
    service = app.state.services
    (info,) = service.catalog.ledger.versions()
    url = f"/v1/models/first/versions/{info.fingerprint}/gaps"
    other = replace(info, index_schema="0123abcd")
    service.catalog.ledger.register(other)
    for schema, named, missing in (("", info, 0), (other.index_schema, other, 1), ("f" * 8, other, 1)):
        app.state.services = replace(service, index_schema=schema)
        gaps = (await client.get(url)).json()
        assert (gaps["collection"], len(gaps["missing"])) == (named.collection, missing)


async def test_gaps_of_an_unknown_version_are_not_found(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/models/first/versions/000000000000/gaps")).status_code == 404


async def test_who_goes_away_leaves_the_reading_to_the_others() -> None:
    class Products:
        asked = 0
        may_answer = threading.Event()

        def sample(self, count: int) -> list[Any]:
            self.asked += 1
            self.may_answer.wait()
            return []

    products = Products()
    summaries = AttributeSummaries(cast(SqlProducts, products))
    impatient, patient = (asyncio.create_task(summaries.current()) for _ in range(2))
    while not products.asked:
        await asyncio.sleep(0.001)
    impatient.cancel()
    await asyncio.wait([impatient])
    products.may_answer.set()
    assert (await patient).products_read == 0
    assert (await summaries.current()).products_read == 0
    assert products.asked == 1
