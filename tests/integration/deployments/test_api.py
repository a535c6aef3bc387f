"""The HTTP API over a real catalog, with encoders and store in this process."""

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from catalog.database import CatalogConfig
from catalog.opening import Catalog, open_catalog
from core.ensemble import EnsembleSearch
from core.search import ModelSearch
from core.types import Encoded, EncoderInfo, EncoderInput
from deployments.config import GatewayArgs, ServedModels
from deployments.http.app import create_app
from deployments.services.assembly import assemble
from milvus.config import MilvusConfig
from milvus.memory import MemoryStore
from tests.support.image_files import b64, png
from tests.support.local_encoder import LocalEncoder

pytestmark = pytest.mark.anyio
COLORS = ("red", "lime", "blue", "white", "black")


@dataclass
class Service:
    client: httpx.AsyncClient
    encoders: dict[str, LocalEncoder]
    catalog: Catalog
    store: MemoryStore

    async def put(self, product_id: str, color: str, **body: Any) -> dict[str, Any]:
        answer = await self.client.put(
            f"/v1/products/{product_id}", json={"images": [b64(png(color))], **body}
        )
        assert answer.status_code in (200, 201), answer.text
        content: dict[str, Any] = answer.json()
        return content

    async def search(self, **body: Any) -> list[str]:
        answer = await self.client.post("/v1/search", json=body)
        assert answer.status_code == 200, answer.text
        return [result["product_id"] for result in answer.json()["results"]]


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    opened = open_catalog(_catalog_config(tmp_path))
    yield opened
    opened.close()


def _catalog_config(folder: Path) -> CatalogConfig:
    return CatalogConfig(database_url=f"sqlite:///{folder}/catalog.sqlite", blobs_url=str(folder / "blobs"))


@pytest.fixture
async def service(catalog: Catalog, tmp_path: Path) -> AsyncIterator[Service]:
    store = MemoryStore()
    encoders = {name: LocalEncoder(name) for name in ("first", "second")}
    searches = {name: ModelSearch(encoder, store) for name, encoder in encoders.items()}
    args = GatewayArgs(
        catalog=_catalog_config(tmp_path),
        milvus=MilvusConfig(uri="http://127.0.0.1:1"),
        max_body_bytes=300_000,
        max_images_per_product=3,
        counts_ttl_s=0,
    )
    app = create_app(args)
    app.state.services = assemble(
        args,
        ServedModels(models=tuple(encoders)),
        catalog,
        store,
        lambda name: encoders[name],
        EnsembleSearch(searches, deadline_s=5),
    )
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield Service(client, encoders, catalog, store)


async def test_a_product_goes_in_and_is_found_by_image_words_and_both(service: Service) -> None:
    for color in COLORS:
        written = await service.put(color, color, title=f"A {color} thing")
        assert {model["state"] for model in written["index"].values()} == {"indexed"}
    text = {"type": "text", "text": "blue"}
    image = {"type": "image", "image": b64(png("blue"))}
    for query in (["text"], ["image"], ["text", "image"]):
        parts = [{"text": text, "image": image}[kind] for kind in query]
        for model in ("first", "ensemble"):
            assert (await service.search(query=parts, model=model, limit=2))[0] == "blue"
    assert (await service.search(query="blue", limit=1)) == ["blue"]


async def test_an_answer_names_versions_weights_and_timings(service: Service) -> None:
    await service.put("p", "red")
    answer = (await service.client.post("/v1/search", json={"query": "red"})).json()
    info = await service.encoders["first"].describe()
    assert answer["models_used"][0] == {
        "model": "first",
        "fingerprint": info.fingerprint,
        "collection": info.collection,
        "weight": 0.5,
    }
    assert {"first.encode", "first.search", "fuse", "hydrate"} <= set(answer["timings_ms"])
    assert not answer["degraded"]


async def test_multipart_carries_products_and_queries(service: Service) -> None:
    files = [("images", ("a.png", png("red"), "image/png")), ("images", ("b.png", png("blue"), "image/png"))]
    metadata = json.dumps({"title": "Both", "attributes": {"price": 3}})
    answer = await service.client.put("/v1/products/both", data={"metadata": metadata}, files=files)
    assert answer.status_code == 201
    assert [image["media_type"] for image in answer.json()["product"]["images"]] == ["image/png"] * 2
    found = await service.client.post("/v1/search", files={"image": ("q.png", png("blue"), "image/png")})
    assert found.json()["results"][0]["product_id"] == "both"
    request = {"query": [{"type": "image", "upload": "photo", "weight": 2}], "model": "first", "limit": 1}
    named = await service.client.post(
        "/v1/search", data={"request": json.dumps(request)}, files={"photo": ("q.png", png("red"))}
    )
    assert named.json()["results"][0]["score"] == pytest.approx(1.0, abs=1e-3)


async def test_put_replaces_keeps_and_removes_images(service: Service) -> None:
    await service.put("p", "red", title="old")
    kept = await service.client.put("/v1/products/p", json={"title": "new"})
    assert kept.status_code == 200
    assert len(kept.json()["product"]["images"]) == 1
    replaced = await service.put("p", "blue")
    info = await service.encoders["first"].describe()
    image = replaced["product"]["images"][0]
    assert list(service.store.keys(info.collection)) == [f"{image['image_id']}:{image['revision']}"]
    emptied = await service.client.put("/v1/products/p", json={"images": []})
    assert emptied.json()["product"]["images"] == []
    assert list(service.store.keys(info.collection)) == []


async def test_a_deleted_product_is_gone_everywhere(service: Service) -> None:
    await service.put("p", "red")
    await service.put("q", "lime")
    assert (await service.client.delete("/v1/products/p")).status_code == 204
    assert (await service.client.get("/v1/products/p")).status_code == 404
    assert (await service.client.delete("/v1/products/p")).status_code == 404
    assert await service.search(query="red", limit=5) == ["q"]
    info = await service.encoders["first"].describe()
    assert len(list(service.store.keys(info.collection))) == 1


async def test_vectors_left_behind_by_a_crash_are_never_shown(service: Service) -> None:
    for color in COLORS:
        await service.put(color, color)
    service.catalog.products.delete("red")
    assert len(await service.search(query="red", model="first", limit=4)) == 4
    assert "red" not in await service.search(query="red", limit=5)


async def test_a_page_that_is_filled_in_rounds_encodes_its_query_once(service: Service) -> None:
    for color in COLORS:
        await service.put(color, color)
    for color in COLORS[:3]:
        service.catalog.products.delete(color)
    encoder = service.encoders["first"]
    encoder.encoded = 0
    found = await service.search(query="red", model="first", limit=2)
    assert sorted(found) == sorted(COLORS[3:])
    assert encoder.encoded == 1


async def test_filters_and_exclusions_narrow_the_page(service: Service) -> None:
    for index, color in enumerate(COLORS):
        await service.put(color, color, attributes={"price": index * 10, "shade": color})
    cheap = await service.search(query="red", filter={"price": {"lt": 25}}, limit=10)
    assert set(cheap) == {"red", "lime", "blue"}
    rest = await service.search(query="red", exclude=["red"], limit=10)
    assert set(rest) == set(COLORS) - {"red"}


async def test_pages_follow_each_other(service: Service) -> None:
    for color in COLORS:
        await service.put(color, color)
    whole = await service.search(query="blue", model="first", limit=5)
    pages = [await service.search(query="blue", model="first", limit=2, offset=n) for n in (0, 2, 4)]
    assert whole == [product for page in pages for product in page]
    assert await service.search(query="blue", model="first", limit=100, offset=1000) == []


async def test_more_like_this_leaves_the_product_out(service: Service) -> None:
    for color in COLORS:
        await service.put(color, color)
    await service.put("scarlet", "#f01010")
    similar = await service.client.get("/v1/products/red/similar", params={"model": "first", "limit": 3})
    found = [result["product_id"] for result in similar.json()["results"]]
    assert found[0] == "scarlet"
    assert "red" not in found


async def test_a_product_is_a_part_of_a_query(service: Service) -> None:
    for color in COLORS:
        await service.put(color, color)
    query = [{"type": "product_id", "product_id": "lime"}, {"type": "text", "text": "red", "weight": -0.2}]
    body = {"query": query, "model": "first", "limit": 5}
    assert "lime" not in await service.search(**body)
    assert (await service.search(**body, include_query_products=True))[0] == "lime"


async def test_embed_returns_a_unit_vector(service: Service) -> None:
    for body in ({"text": "red"}, {"image": "data:image/png;base64," + b64(png("red"))}):
        answer = (await service.client.post("/v1/embed/first", json=body)).json()
        assert answer["dimension"] == len(answer["embedding"])
        assert sum(value**2 for value in answer["embedding"]) == pytest.approx(1.0, abs=1e-5)
    upload = await service.client.post("/v1/embed/first", files={"image": ("a.png", png("red"))})
    assert upload.status_code == 200


async def test_what_a_model_that_is_away_misses_stays_pending(service: Service) -> None:
    service.encoders["second"].away = True
    written = await service.put("p", "red")
    assert {name: model["state"] for name, model in written["index"].items()} == {
        "first": "indexed",
        "second": "pending",
    }
    answer = (await service.client.post("/v1/search", json={"query": "red"})).json()
    assert answer["degraded"]
    assert answer["skipped"] == {"second": "second is not available"}
    assert [result["product_id"] for result in answer["results"]] == ["p"]
    ready = await service.client.get("/health/ready")
    assert ready.status_code == 503
    assert ready.json()["problems"] == {"second": "second is not available"}
    stats = (await service.client.get("/v1/stats")).json()
    assert stats["models"]["second"] is None
    models = (await service.client.get("/v1/models")).json()
    assert models[1]["problem"] == "second is not available"


async def test_a_bug_of_one_model_leaves_a_write_to_the_others_and_is_logged(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_inputs: object) -> Encoded:
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr(service.encoders["second"], "encode", fail)
    written = await service.put("p", "red")
    assert {name: model["state"] for name, model in written["index"].items()} == {
        "first": "indexed",
        "second": "pending",
    }
    assert "ZeroDivisionError: a bug of ours" in caplog.text
    ready = await service.client.get("/health/ready")
    assert ready.status_code == 503
    assert "internal error" in ready.json()["problems"]["second"]


async def test_models_that_read_no_text_are_not_asked_to(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    blind, asked = service.encoders["second"], list[str]()
    info = replace(await blind.describe(), modalities=("image",))

    async def describe() -> EncoderInfo:
        asked.append("describe")
        return info

    async def encode(inputs: Sequence[EncoderInput]) -> Encoded:
        asked.append("encode")
        return await LocalEncoder.encode(blind, inputs)

    monkeypatch.setattr(blind, "describe", describe)
    monkeypatch.setattr(blind, "encode", encode)
    await service.put("p", "red")
    asked.clear()
    for query in ("red", [{"type": "image", "image": b64(png("red"))}, {"type": "text", "text": "red"}]):
        body = {"query": query, "keyword_weight": 0}
        answer = (await service.client.post("/v1/search", json=body)).json()
        assert [result["product_id"] for result in answer["results"]] == ["p"]
        assert answer["skipped"] == {"second": "second does not take texts"}
        assert not answer["degraded"]
    refused = await service.client.post(
        "/v1/search", json={"query": "red", "keyword_weight": 0, "weights": {"first": 0}}
    )
    assert (refused.status_code, refused.json()["error"]["type"]) == (422, "unsupported_modality")
    # Nor to hear what others can do, nor for a threshold.
    assert (await service.client.post("/v1/embed/first", json={"text": "red"})).status_code == 200
    rate = {"query": "red", "max_false_match_rate": 0.2}
    assert (await service.client.post("/v1/search", json=rate)).status_code == 409
    assert asked == []
    # Images it reads as before.
    images = {"query": [{"type": "image", "image": b64(png("red"))}]}
    seen = (await service.client.post("/v1/search", json=images)).json()
    assert [used["model"] for used in seen["models_used"]] == ["first", "second"]


async def test_models_versions_stats_and_health(service: Service) -> None:
    await service.put("p", "red")
    assert (await service.client.get("/health/live")).status_code == 200
    ready = await service.client.get("/health/ready")
    assert (ready.status_code, ready.json()["ready"]) == (200, True)
    stats = (await service.client.get("/v1/stats")).json()
    assert stats["products"] == stats["images"] == 1
    assert stats["models"]["first"] == {"images": 1, "indexed": 1, "failed": 0, "missing": 0}
    (version,) = (await service.client.get("/v1/models/first/versions")).json()
    assert version["live"]
    assert version["collection"] == f"first_{version['fingerprint']}"


async def test_an_image_is_served_as_it_was_sent(service: Service) -> None:
    written = await service.put("p", "red")
    answer = await service.client.get(written["product"]["images"][0]["url"])
    assert answer.content == png("red")
    assert answer.headers["content-type"] == "image/png"
    assert "immutable" in answer.headers["cache-control"]


@pytest.mark.parametrize("path", ["", "/thumbnail"])
async def test_an_image_is_for_the_callers_cache_alone_and_sent_to_it_once(
    service: Service, path: str
) -> None:
    written = await service.put("p", "red")
    url = written["product"]["images"][0]["url"] + path
    first = await service.client.get(url)
    assert first.headers["cache-control"].startswith("private, ")
    etag = first.headers["etag"]
    for has in (etag, f"W/{etag}", f'"other", W/{etag} ,"more"', "*"):
        again = await service.client.get(url, headers={"If-None-Match": has})
        assert (again.status_code, again.content) == (304, b""), has
        assert [again.headers[name] for name in ("etag", "cache-control")] == [
            etag,
            first.headers["cache-control"],
        ]
    two_lines = await service.client.get(url, headers=[("If-None-Match", '"x"'), ("If-None-Match", etag)])
    assert two_lines.status_code == 304
    for other in ('"other"', etag.strip('"'), f'"{etag}"'):
        fresh = await service.client.get(url, headers={"If-None-Match": other})
        assert (fresh.status_code, fresh.content) == (200, first.content), other
    head = await service.client.head(url, headers={"If-None-Match": etag})
    assert head.status_code == 304


@pytest.mark.parametrize(
    "call",
    [
        "GET /v1/products/",
        "GET /v1/search/",
        "POST /v1/search/",
        "GET /v1/jobs/",
        "GET /health/ready/",
        "GET /meta/",
    ],
)
async def test_a_slash_at_the_end_of_a_path_is_no_path_in_the_one_shape(service: Service, call: str) -> None:
    method, _, path = call.partition(" ")
    answer = await service.client.request(method, path, json={"query": "red"} if method == "POST" else None)
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "not_found")
    assert "slash" in answer.json()["error"]["message"]
    assert path in answer.json()["error"]["message"]


BAD_SEARCHES: dict[str, tuple[dict[str, Any], int, str | None]] = {
    "empty": ({}, 422, "query"),
    "no text": ({"query": ""}, 422, "query"),
    "too long a text": ({"query": "x" * 3000}, 422, "query"),
    "no weight": ({"query": "x", "weights": {"first": 0, "second": 0}}, 422, "weights"),
    "unknown field": ({"query": "x", "color": "red"}, 422, "color"),
    "unknown model": ({"query": "x", "model": "nope"}, 404, "model"),
    "unknown part": ({"query": [{"type": "sound"}]}, 422, "query[0]"),
    "bad base64": ({"query": [{"type": "image", "image": "%%%"}]}, 422, "query[0].image"),
    "not an image": (
        {"query": [{"type": "image", "image": b64(b"words")}], "model": "first"},
        422,
        "query[0]",
    ),
    "unknown product": ({"query": [{"type": "product_id", "product_id": "no"}]}, 404, "query[0].product_id"),
    "no file": ({"query": [{"type": "image", "upload": "photo"}]}, 422, "query[0].upload"),
    "neither": ({"query": [{"type": "image"}]}, 422, "query[0]"),
    "limit": ({"query": "x", "limit": 0}, 422, "limit"),
    "limit as text": ({"query": "x", "limit": "3"}, 422, "limit"),
    "limit as a truth": ({"query": "x", "limit": True}, 422, "limit"),
    "limit with a fraction": ({"query": "x", "limit": 2.5}, 422, "limit"),
    "offset as text": ({"query": "x", "offset": "0"}, 422, "offset"),
    "truth as text": ({"query": "x", "include_query_products": "yes"}, 422, "include_query_products"),
    "truth as a number": ({"query": "x", "include_query_products": 1}, 422, "include_query_products"),
    "share as text": ({"query": "x", "keyword_weight": "0.5"}, 422, "keyword_weight"),
    "share as a truth": ({"query": "x", "keyword_weight": True}, 422, "keyword_weight"),
    "weight as text": ({"query": "x", "weights": {"first": "1"}}, 422, "weights.first"),
    "weight of a part as text": (
        {"query": [{"type": "text", "text": "x", "weight": "2"}]},
        422,
        "query[0].weight",
    ),
    "box as text": (
        {
            "query": [
                {
                    "type": "image",
                    "image": b64(b"x"),
                    "box": {"x": "0.1", "y": 0, "width": 0.5, "height": 0.5},
                }
            ]
        },
        422,
        "query[0].box.x",
    ),
    "id as a number": ({"query": [{"type": "product_id", "product_id": 7}]}, 422, "query[0].product_id"),
    "exclude as numbers": ({"query": "x", "exclude": [7]}, 422, "exclude[0]"),
    "too deep": ({"query": "x", "limit": 900, "offset": 1900}, 413, "limit"),
    "negative weight": ({"query": "x", "weights": {"first": -1}}, 422, "weights.first"),
    "option of the ensemble": ({"query": "x", "model": "first", "fusion": "rrf"}, 422, "fusion"),
    "cancels out": (
        {
            "query": [{"type": "text", "text": "red"}, {"type": "text", "text": "red", "weight": -1}],
            "model": "first",
        },
        422,
        "query",
    ),
}


@pytest.mark.parametrize("case", BAD_SEARCHES)
async def test_a_bad_search_gets_the_reason(service: Service, case: str) -> None:
    body, status, param = BAD_SEARCHES[case]
    answer = await service.client.post("/v1/search", json=body, headers={"X-Request-ID": "me-1"})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, param), answer.text
    assert len(error["message"]) > 10
    assert error["request_id"] == answer.headers["x-request-id"] == "me-1"


async def test_a_number_without_a_fraction_is_an_integer_however_it_is_written(service: Service) -> None:
    await service.put("p", "red")
    body = b'{"query": "red", "limit": 1.0, "offset": 0.0, "keyword_weight": 0}'
    answer = await service.client.post("/v1/search", content=body)
    assert answer.status_code == 200, answer.text
    assert [each["product_id"] for each in answer.json()["results"]] == ["p"]


async def test_a_search_before_anything_is_indexed_is_asked_to_try_again(service: Service) -> None:
    query = [{"type": "image", "image": b64(png("red"))}]
    for model in ("first", "ensemble"):
        answer = await service.client.post("/v1/search", json={"query": query, "model": model})
        assert answer.status_code == 503
        assert answer.headers["retry-after"]


async def test_a_refused_product_is_not_stored(service: Service) -> None:
    good, bad = b64(png("red")), b64(png("red")[:60])
    cases = [
        ({"images": [good, bad]}, 422, "images[1]"),
        ({"images": [good] * 4}, 413, "images"),
        ({"images": [""]}, 422, "images[0]"),
        ({"color": "red"}, 422, "color"),
        ({"attributes": {"a": {"b": 1}}}, 422, None),
        ({"attributes": {"sizes": [1] * 16_000}}, 413, "attributes"),
        ({"title": 5}, 422, "title"),
    ]
    for body, status, param in cases:
        answer = await service.client.put("/v1/products/p", json=body)
        assert answer.status_code == status, answer.text
        assert param is None or answer.json()["error"]["param"] == param
    assert (await service.client.get("/v1/products/p")).status_code == 404


async def test_malformed_requests_get_the_one_error_shape(service: Service) -> None:
    client = service.client
    headers = {"content-type": "application/json"}
    answers = [
        await client.post("/v1/search", content=b"{", headers=headers),
        await client.post("/v1/search", content=b'{"query": "\xff"}', headers=headers),
        await client.post("/v1/search", content=b'{"query": [{"type":"text","text":"x","weight":NaN}]}'),
        await client.post("/v1/search", content=b"[" * 100_000),
        await client.put("/v1/products/p", content=b"x", headers={"content-type": "multipart/form-data"}),
        await client.put("/v1/products/p", content=b"x" * 400_000),
        await client.get("/v1/nowhere"),
        await client.delete("/v1/search"),
        await client.get("/v1/products", params={"limit": "many"}),
        await client.get("/v1/products", params={"offset": "1"}),
        await client.put(
            "/v1/products/p", files={}, headers={"content-type": "multipart/form-data; boundary=x"}
        ),
        await client.post("/v1/search", json=[]),
    ]
    assert [answer.status_code for answer in answers] == [
        422,
        422,
        422,
        422,
        422,
        413,
        404,
        405,
        422,
        422,
        422,
        422,
    ]
    for answer in answers:
        assert set(answer.json()["error"]) == {"type", "message", "param", "request_id"}


async def test_a_failure_of_our_own_hides_its_cause_and_keeps_the_id(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(type(service.catalog.products), "get", fail)
    answer = await service.client.get("/v1/products/p", headers={"X-Request-ID": "me-2"})
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (500, "internal")
    assert "secret" not in answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert error["request_id"] == answer.headers["x-request-id"] == "me-2"


async def test_a_stream_without_a_length_is_cut_at_the_limit(service: Service) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 10_000

    answer = await service.client.put("/v1/products/p", content=endless())
    assert answer.status_code == 413
