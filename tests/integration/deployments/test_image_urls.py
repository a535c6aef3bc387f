"""Images by URL, wherever the API takes images."""

import asyncio
import base64
import io
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from PIL import Image

from tests.support.image_files import png
from tests.support.local_encoder import LocalEncoder
from tests.support.local_service import open_fetching
from tests.support.servers import HostileServer, hostile_server

pytestmark = pytest.mark.anyio


@pytest.fixture
def encoders() -> dict[str, LocalEncoder]:
    return {"both": LocalEncoder("both")}


@pytest.fixture
async def server(app: FastAPI) -> AsyncIterator[HostileServer]:
    async with hostile_server() as running:
        open_fetching(app, running)
        yield running


async def search(client: httpx.AsyncClient, *parts: dict[str, Any]) -> httpx.Response:
    return await client.post("/v1/search", json={"model": "both", "query": list(parts), "limit": 1})


def by_url(url: str, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": url, **more}


async def test_a_product_takes_urls_beside_base64(client: httpx.AsyncClient, server: HostileServer) -> None:
    urls = [server.answer("/red.png", png("red")), server.answer("/blue.png", png("blue"))]
    images = [urls[0], base64.b64encode(png("lime")).decode(), urls[1]]
    answer = await client.put("/v1/products/p", json={"images": images})
    assert answer.status_code == 201, answer.text
    stored = [(await client.get(image["url"])).content for image in answer.json()["product"]["images"]]
    assert stored == [png("red"), png("lime"), png("blue")]
    broken = await client.put("/v1/products/p", json={"images": [urls[0], server.url("/none", "x:1")]})
    assert broken.status_code == 422
    assert broken.json()["error"]["param"] == "images[1]"


async def test_a_product_with_an_unfetchable_image_is_not_stored(
    client: httpx.AsyncClient, server: HostileServer
) -> None:
    urls = [server.answer("/red.png", png("red")), server.answer("/gone", status="404 Not Found")]
    answer = await client.put("/v1/products/p", json={"images": urls})
    assert (answer.status_code, answer.json()["error"]["type"]) == (422, "unfetchable_url")
    assert (await client.get("/v1/products/p")).status_code == 404


async def test_a_query_takes_urls(client: httpx.AsyncClient, server: HostileServer) -> None:
    for color in ("red", "blue"):
        url = server.answer(f"/{color}.png", png(color))
        assert (await client.put(f"/v1/products/{color}", json={"images": [url]})).status_code == 201
    for color in ("red", "blue"):
        answer = await search(client, by_url(server.url(f"/{color}.png")))
        assert answer.json()["results"][0]["product_id"] == color
    both = await search(
        client, by_url(server.url("/red.png"), weight=-1), by_url(server.url("/blue.png"), weight=2)
    )
    assert both.json()["results"][0]["product_id"] == "blue"


async def test_the_urls_of_a_query_are_fetched_side_by_side(
    client: httpx.AsyncClient, server: HostileServer
) -> None:
    all_there = asyncio.Barrier(5)

    async def late(writer: asyncio.StreamWriter) -> None:
        await all_there.wait()
        body = png("red")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    urls = [server.behave(f"/{number}", late) for number in range(5)]
    await client.put("/v1/products/p", json={"images": [server.answer("/p.png", png("red"))]})
    assert (await search(client, *(by_url(url) for url in urls))).status_code == 200


@pytest.mark.parametrize(
    ("answer", "status", "kind"),
    [
        ({"body": b"<!doctype html><title>Not an image</title>"}, 422, "invalid_image"),
        ({"status": "404 Not Found"}, 422, "unfetchable_url"),
        ({"status": "503 Service Unavailable"}, 424, "fetch_failed"),
        ({"body": bytes(100_001)}, 413, "input_too_large"),
        ({"status": "302 Found", "Location": "http://169.254.169.254/"}, 422, "unfetchable_url"),
    ],
)
async def test_what_goes_wrong_with_a_url_is_the_callers_to_mend(
    client: httpx.AsyncClient, server: HostileServer, answer: dict[str, Any], status: int, kind: str
) -> None:
    url = server.answer("/x", **answer)
    asked = [
        await search(client, {"type": "text", "text": "red"}, by_url(url)),
        await client.post("/v1/embed/both", json={"image_url": url}),
        await client.put("/v1/products/p", json={"images": [url]}),
        await client.post("/v1/embeddings", json={"model": "both", "input": url, "modality": "image"}),
    ]
    assert [(each.status_code, each.json()["error"]["type"]) for each in asked] == [(status, kind)] * 4
    assert asked[0].json()["error"]["param"].startswith("query[1]")
    assert asked[1].json()["error"]["param"] == "image_url"
    assert asked[2].json()["error"]["param"] == "images[0]"
    assert asked[3].json()["error"]["param"] == "input[0]"


async def test_an_embedding_takes_one_of_text_image_and_url(
    client: httpx.AsyncClient, server: HostileServer
) -> None:
    url = server.answer("/red.png", png("red"))
    fetched = await client.post("/v1/embed/both", json={"image_url": url})
    sent = await client.post("/v1/embed/both", json={"image": base64.b64encode(png("red")).decode()})
    assert fetched.json()["embedding"] == sent.json()["embedding"]
    for body in ({"image_url": url, "text": "red"}, {}, {"image": "AA==", "image_url": url}):
        assert (await client.post("/v1/embed/both", json=body)).json()["error"]["param"] == "body"


async def test_the_images_of_a_query_fit_in_one_call(
    client: httpx.AsyncClient, server: HostileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = [server.answer(f"/{number}", png("red")) for number in range(3)]
    monkeypatch.setattr("deployments.http.routes.search.MAX_BYTES", 2 * len(png("red")))
    assert (await search(client, *(by_url(url) for url in urls[:2]))).status_code != 413
    answer = await search(client, *(by_url(url) for url in urls))
    assert (answer.status_code, answer.json()["error"]["param"]) == (413, "query")


async def test_a_box_applies_to_an_image_behind_a_url(
    client: httpx.AsyncClient, server: HostileServer
) -> None:
    halves = Image.new("RGB", (20, 10), "red")
    halves.paste("blue", (10, 0, 20, 10))
    buffer = io.BytesIO()
    halves.save(buffer, "PNG")
    url = server.answer("/halves.png", buffer.getvalue())
    for color in ("red", "blue"):
        server.answer(f"/{color}.png", png(color))
        await client.put(f"/v1/products/{color}", json={"images": [server.url(f"/{color}.png")]})
    for x, color in ((0, "red"), (0.5, "blue")):
        answer = await search(client, by_url(url, box={"x": x, "y": 0, "width": 0.5, "height": 1}))
        assert answer.json()["results"][0]["product_id"] == color
