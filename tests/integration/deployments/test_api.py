"""The HTTP API over a real catalog, with encoders and store in this process."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.types import Encoded, EncoderInfo, EncoderInput
from deployments.http.requests import MAX_FILES
from milvus.memory import MemoryStore
from tests.support.image_files import b64, png
from tests.support.local_encoder import LocalEncoder
from tests.support.shop import Shop, ids, open_shop

pytestmark = pytest.mark.anyio
COLORS = ("red", "lime", "blue", "white", "black")


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def shop(tmp_path: Path, store: MemoryStore) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path, store=store, max_body_bytes=300_000, max_images_per_product=3) as opened:
        yield opened


async def put(shop: Shop, product_id: str, color: str, **body: Any) -> dict[str, Any]:
    answer = await shop.client.put(f"/v1/products/{product_id}", json={"images": [b64(png(color))], **body})
    assert answer.is_success, answer.text
    content: dict[str, Any] = answer.json()
    return content


async def search(shop: Shop, **body: Any) -> list[str]:
    return ids(await shop.search(**body))


async def test_a_product_goes_in_and_is_found_by_image_words_and_both(shop: Shop) -> None:
    for color in COLORS:
        written = await put(shop, color, color, title=f"A {color} thing")
        assert {model["state"] for model in written["index"].values()} == {"indexed"}
    text = {"type": "text", "text": "blue"}
    image = {"type": "image", "image": b64(png("blue"))}
    for query in (["text"], ["image"], ["text", "image"]):
        parts = [{"text": text, "image": image}[kind] for kind in query]
        for model in ("first", "ensemble"):
            assert (await search(shop, query=parts, model=model, limit=2))[0] == "blue"
    assert (await search(shop, query="blue", limit=1)) == ["blue"]


async def test_an_answer_names_versions_weights_and_timings(shop: Shop) -> None:
    await put(shop, "p", "red")
    answer = (await shop.client.post("/v1/search", json={"query": "red"})).json()
    info = await shop.encoders["first"].describe()
    assert answer["models_used"][0] == {
        "model": "first",
        "fingerprint": info.fingerprint,
        "collection": info.collection,
        "weight": 0.5,
    }
    assert {"first.encode", "first.search", "fuse", "hydrate"} <= set(answer["timings_ms"])
    assert not answer["degraded"]


async def test_multipart_carries_products_and_queries(shop: Shop) -> None:
    files = [("images", ("a.png", png("red"), "image/png")), ("images", ("b.png", png("blue"), "image/png"))]
    metadata = json.dumps({"title": "Both", "attributes": {"price": 3}})
    answer = await shop.client.put("/v1/products/both", data={"metadata": metadata}, files=files)
    assert answer.status_code == 201
    assert [image["media_type"] for image in answer.json()["product"]["images"]] == ["image/png"] * 2
    found = await shop.client.post("/v1/search", files={"image": ("q.png", png("blue"), "image/png")})
    assert found.json()["results"][0]["product_id"] == "both"
    request = {"query": [{"type": "image", "upload": "photo", "weight": 2}], "model": "first", "limit": 1}
    named = await shop.client.post(
        "/v1/search", data={"request": json.dumps(request)}, files={"photo": ("q.png", png("red"))}
    )
    assert named.json()["results"][0]["score"] == pytest.approx(1.0, abs=1e-3)


async def test_further_files_of_a_field_have_names_of_their_own(shop: Shop) -> None:
    for color in ("red", "lime"):
        await put(shop, color, color)
    images = {color: ("q.png", png(color)) for color in ("red", "lime", "blue")}
    request = {"query": [{"type": "image", "upload": "a", "weight": -1}, {"type": "image", "upload": "a[1]"}]}
    sent = {"data": {"request": json.dumps(request | {"model": "first", "limit": 1})}}
    two = [("a", images["red"]), ("a", images["lime"])]
    answer = await shop.client.post("/v1/search", files=two, **sent)
    assert ids(answer.json()) == ["lime"]
    for files in ([*two, ("a[1]", images["blue"])], [("a[1]", images["blue"]), *two]):
        refused = await shop.client.post("/v1/search", files=files, **sent)
        assert (refused.status_code, refused.json()["error"]["param"] in ("a", "a[1]")) == (422, True)
        assert "two files have the name 'a[1]'" in refused.json()["error"]["message"]


async def removed(store: MemoryStore, collection: str, left: int) -> None:
    """Wait until only so many rows are left: obsolete ones are removed after the answer."""
    async with asyncio.timeout(60):
        while len(list(store.keys(collection))) > left:
            await asyncio.sleep(0.01)


async def test_put_replaces_keeps_and_removes_images(shop: Shop, store: MemoryStore) -> None:
    await put(shop, "p", "red", title="old")
    kept = await shop.client.put("/v1/products/p", json={"title": "new"})
    assert kept.status_code == 200
    assert len(kept.json()["product"]["images"]) == 1
    replaced = await put(shop, "p", "blue")
    info = await shop.encoders["first"].describe()
    image = replaced["product"]["images"][0]
    await removed(store, info.collection, 1)
    assert list(store.keys(info.collection)) == [f"{image['image_id']}:{image['revision']}"]
    emptied = await shop.client.put("/v1/products/p", json={"images": []})
    assert emptied.json()["product"]["images"] == []
    await removed(store, info.collection, 0)


async def test_a_deleted_product_is_gone_everywhere(shop: Shop, store: MemoryStore) -> None:
    await put(shop, "p", "red")
    await put(shop, "q", "lime")
    assert (await shop.client.delete("/v1/products/p")).status_code == 204
    assert (await shop.client.get("/v1/products/p")).status_code == 404
    assert (await shop.client.delete("/v1/products/p")).status_code == 404
    assert await search(shop, query="red", limit=5) == ["q"]
    await removed(store, (await shop.encoders["first"].describe()).collection, 1)


async def test_vectors_left_behind_by_a_crash_are_never_shown(shop: Shop) -> None:
    for color in COLORS:
        await put(shop, color, color)
    shop.app.state.services.catalog.products.delete("red")
    assert len(await search(shop, query="red", model="first", limit=4)) == 4
    assert "red" not in await search(shop, query="red", limit=5)


async def test_a_page_that_is_filled_in_rounds_encodes_its_query_once(shop: Shop) -> None:
    for color in COLORS:
        await put(shop, color, color)
    for color in COLORS[:3]:
        shop.app.state.services.catalog.products.delete(color)
    encoder = shop.encoders["first"]
    encoder.encoded = 0
    found = await search(shop, query="red", model="first", limit=2)
    assert sorted(found) == sorted(COLORS[3:])
    assert encoder.encoded == 1


async def test_filters_and_exclusions_narrow_the_page(shop: Shop) -> None:
    for index, color in enumerate(COLORS):
        await put(shop, color, color, attributes={"price": index * 10, "shade": color})
    cheap = await search(shop, query="red", filter={"price": {"lt": 25}}, limit=10)
    assert set(cheap) == {"red", "lime", "blue"}
    rest = await search(shop, query="red", exclude=["red"], limit=10)
    assert set(rest) == set(COLORS) - {"red"}


async def test_pages_follow_each_other(shop: Shop) -> None:
    for color in COLORS:
        await put(shop, color, color)
    whole = await search(shop, query="blue", model="first", limit=5)
    pages = [await search(shop, query="blue", model="first", limit=2, offset=n) for n in (0, 2, 4)]
    assert whole == [product for page in pages for product in page]
    assert await search(shop, query="blue", model="first", limit=100, offset=1000) == []


async def test_more_like_this_leaves_the_product_out(shop: Shop) -> None:
    for color in COLORS:
        await put(shop, color, color)
    await put(shop, "scarlet", "#f01010")
    similar = await shop.client.get("/v1/products/red/similar", params={"model": "first", "limit": 3})
    found = [result["product_id"] for result in similar.json()["results"]]
    assert found[0] == "scarlet"
    assert "red" not in found


async def test_a_product_is_a_part_of_a_query(shop: Shop) -> None:
    for color in COLORS:
        await put(shop, color, color)
    query = [{"type": "product_id", "product_id": "lime"}, {"type": "text", "text": "red", "weight": -0.2}]
    body = {"query": query, "model": "first", "limit": 5}
    assert "lime" not in await search(shop, **body)
    assert (await search(shop, **body, include_query_products=True))[0] == "lime"


async def test_embed_returns_a_unit_vector(shop: Shop) -> None:
    for body in ({"text": "red"}, {"image": "data:image/png;base64," + b64(png("red"))}):
        answer = (await shop.client.post("/v1/embed/first", json=body)).json()
        assert answer["dimension"] == len(answer["embedding"])
        assert sum(value**2 for value in answer["embedding"]) == pytest.approx(1.0, abs=1e-5)
    upload = await shop.client.post("/v1/embed/first", files={"image": ("a.png", png("red"))})
    assert upload.status_code == 200


async def test_what_a_model_that_is_away_misses_stays_pending(shop: Shop) -> None:
    shop.encoders["second"].away = True
    written = await put(shop, "p", "red")
    assert {name: model["state"] for name, model in written["index"].items()} == {
        "first": "indexed",
        "second": "pending",
    }
    answer = (await shop.client.post("/v1/search", json={"query": "red"})).json()
    assert answer["degraded"]
    assert answer["skipped"] == {"second": "second is not available"}
    assert [result["product_id"] for result in answer["results"]] == ["p"]
    ready = await shop.client.get("/health/ready")
    assert ready.status_code == 503
    assert ready.json()["problems"] == {"second": "second is not available"}
    stats = (await shop.client.get("/v1/stats")).json()
    assert stats["models"]["second"] is None
    models = (await shop.client.get("/v1/models")).json()
    assert models[1]["problem"] == "second is not available"


async def test_a_bug_of_one_model_leaves_a_write_to_the_others_and_is_logged(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_inputs: object) -> Encoded:
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr(shop.encoders["second"], "encode", fail)
    written = await put(shop, "p", "red")
    assert {name: model["state"] for name, model in written["index"].items()} == {
        "first": "indexed",
        "second": "pending",
    }
    assert "ZeroDivisionError: a bug of ours" in caplog.text
    ready = await shop.client.get("/health/ready")
    assert ready.status_code == 503
    assert "internal error" in ready.json()["problems"]["second"]


async def test_models_that_read_no_text_are_not_asked_to(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    blind, asked = shop.encoders["second"], list[str]()
    info = replace(await blind.describe(), modalities=("image",))

    async def describe() -> EncoderInfo:
        asked.append("describe")
        return info

    async def encode(inputs: Sequence[EncoderInput]) -> Encoded:
        asked.append("encode")
        return await LocalEncoder.encode(blind, inputs)

    monkeypatch.setattr(blind, "describe", describe)
    monkeypatch.setattr(blind, "encode", encode)
    await put(shop, "p", "red")
    asked.clear()
    for query in ("red", [{"type": "image", "image": b64(png("red"))}, {"type": "text", "text": "red"}]):
        body = {"query": query, "keyword_weight": 0}
        answer = (await shop.client.post("/v1/search", json=body)).json()
        assert [result["product_id"] for result in answer["results"]] == ["p"]
        assert answer["skipped"] == {"second": "second does not take texts"}
        assert not answer["degraded"]
    refused = await shop.client.post(
        "/v1/search", json={"query": "red", "keyword_weight": 0, "weights": {"first": 0}}
    )
    assert (refused.status_code, refused.json()["error"]["type"]) == (422, "unsupported_modality")
    # Nor to hear what others can do, nor for a threshold.
    assert (await shop.client.post("/v1/embed/first", json={"text": "red"})).status_code == 200
    rate = {"query": "red", "max_false_match_rate": 0.2}
    assert (await shop.client.post("/v1/search", json=rate)).status_code == 409
    assert asked == []
    # Images it reads as before.
    images = {"query": [{"type": "image", "image": b64(png("red"))}]}
    seen = (await shop.client.post("/v1/search", json=images)).json()
    assert [used["model"] for used in seen["models_used"]] == ["first", "second"]


async def test_models_versions_stats_and_health(shop: Shop) -> None:
    await put(shop, "p", "red")
    assert (await shop.client.get("/health/live")).status_code == 200
    ready = await shop.client.get("/health/ready")
    assert (ready.status_code, ready.json()["ready"]) == (200, True)
    stats = (await shop.client.get("/v1/stats")).json()
    assert stats["products"] == stats["images"] == 1
    assert stats["models"]["first"] == {"images": 1, "indexed": 1, "failed": 0, "missing": 0}
    (version,) = (await shop.client.get("/v1/models/first/versions")).json()
    assert version["live"]
    assert version["collection"] == f"first_{version['fingerprint']}"


async def test_an_image_is_served_as_it_was_sent(shop: Shop) -> None:
    written = await put(shop, "p", "red")
    answer = await shop.client.get(written["product"]["images"][0]["url"])
    assert answer.content == png("red")
    assert answer.headers["content-type"] == "image/png"
    assert "immutable" in answer.headers["cache-control"]


@pytest.mark.parametrize("path", ["", "/thumbnail"])
async def test_an_image_is_for_the_callers_cache_alone_and_sent_to_it_once(shop: Shop, path: str) -> None:
    written = await put(shop, "p", "red")
    url = written["product"]["images"][0]["url"] + path
    first = await shop.client.get(url)
    assert first.headers["cache-control"].startswith("private, ")
    etag = first.headers["etag"]
    for has in (etag, f"W/{etag}", f'"other", W/{etag} ,"more"', "*"):
        again = await shop.client.get(url, headers={"If-None-Match": has})
        assert (again.status_code, again.content) == (304, b""), has
        assert [again.headers[name] for name in ("etag", "cache-control")] == [
            etag,
            first.headers["cache-control"],
        ]
    two_lines = await shop.client.get(url, headers=[("If-None-Match", '"x"'), ("If-None-Match", etag)])
    assert two_lines.status_code == 304
    for other in ('"other"', etag.strip('"'), f'"{etag}"'):
        fresh = await shop.client.get(url, headers={"If-None-Match": other})
        assert (fresh.status_code, fresh.content) == (200, first.content), other
    head = await shop.client.head(url, headers={"If-None-Match": etag})
    assert head.status_code == 304


@pytest.mark.parametrize(
    "call", ["GET /v1/products/", "POST /v1/search/", "GET /health/ready/", "GET /meta/"]
)
async def test_a_slash_at_the_end_of_a_path_is_no_path_in_the_one_shape(shop: Shop, call: str) -> None:
    method, _, path = call.partition(" ")
    answer = await shop.client.request(method, path, json={"query": "red"} if method == "POST" else None)
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "not_found")
    assert "slash" in answer.json()["error"]["message"]
    assert path in answer.json()["error"]["message"]


def part(**fields: Any) -> dict[str, Any]:
    return {"query": [fields]}


WHOLE = {"x": 0, "y": 0, "width": 0.5, "height": 0.5}
RED = {"type": "text", "text": "red"}
BAD_SEARCHES: list[tuple[dict[str, Any], int, str]] = [
    ({"query": []}, 422, "query"),
    ({"query": ""}, 422, "query"),
    ({"query": "x" * 3000}, 422, "query"),
    ({"weights": {"first": 0, "second": 0}}, 422, "weights"),
    ({"weights": {"first": -1}}, 422, "weights.first"),
    ({"weights": {"first": "1"}}, 422, "weights.first"),
    ({"color": "red"}, 422, "color"),
    ({"model": "nope"}, 404, "model"),
    ({"model": "first", "fusion": "rrf"}, 422, "fusion"),
    ({"limit": 0}, 422, "limit"),
    ({"limit": "3"}, 422, "limit"),
    ({"limit": True}, 422, "limit"),
    ({"limit": 2.5}, 422, "limit"),
    ({"limit": 900, "offset": 1900}, 413, "limit"),
    ({"offset": "0"}, 422, "offset"),
    ({"include_query_products": "yes"}, 422, "include_query_products"),
    ({"include_query_products": 1}, 422, "include_query_products"),
    ({"keyword_weight": "0.5"}, 422, "keyword_weight"),
    ({"keyword_weight": True}, 422, "keyword_weight"),
    ({"exclude": [7]}, 422, "exclude[0]"),
    (part(type="sound"), 422, "query[0]"),
    (part(type="text", text="x", weight="2"), 422, "query[0].weight"),
    (part(type="image"), 422, "query[0]"),
    (part(type="image", image="%%%"), 422, "query[0].image"),
    (part(type="image", image=b64(b"words")) | {"model": "first"}, 422, "query[0]"),
    (part(type="image", image=b64(b"x"), box=WHOLE | {"x": "0.1"}), 422, "query[0].box.x"),
    (part(type="image", upload="photo"), 422, "query[0].upload"),
    (part(type="product_id", product_id=7), 422, "query[0].product_id"),
    (part(type="product_id", product_id="no"), 404, "query[0].product_id"),
    ({"query": [RED, RED | {"weight": -1}], "model": "first"}, 422, "query"),
]


@pytest.mark.parametrize(("body", "status", "param"), BAD_SEARCHES)
async def test_a_bad_search_gets_the_reason(
    shop: Shop, body: dict[str, Any], status: int, param: str
) -> None:
    answer = await shop.client.post(
        "/v1/search", json={"query": "x"} | body, headers={"X-Request-ID": "me-1"}
    )
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, param), answer.text
    assert len(error["message"]) > 10
    assert error["request_id"] == answer.headers["x-request-id"] == "me-1"


async def test_a_number_without_a_fraction_is_an_integer_however_it_is_written(shop: Shop) -> None:
    await put(shop, "p", "red")
    body = b'{"query": "red", "limit": 1.0, "offset": 0.0, "keyword_weight": 0}'
    answer = await shop.client.post("/v1/search", content=body)
    assert answer.status_code == 200, answer.text
    assert [each["product_id"] for each in answer.json()["results"]] == ["p"]


async def test_a_search_before_anything_is_indexed_is_asked_to_try_again(shop: Shop) -> None:
    query = [{"type": "image", "image": b64(png("red"))}]
    for model in ("first", "ensemble"):
        answer = await shop.client.post("/v1/search", json={"query": query, "model": model})
        assert answer.status_code == 503
        assert answer.headers["retry-after"]


async def test_a_refused_product_is_not_stored(shop: Shop) -> None:
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
        answer = await shop.client.put("/v1/products/p", json=body)
        assert answer.status_code == status, answer.text
        assert param is None or answer.json()["error"]["param"] == param
    assert (await shop.client.get("/v1/products/p")).status_code == 404


async def test_malformed_requests_get_the_one_error_shape(shop: Shop) -> None:
    client = shop.client
    headers = {"content-type": "application/json"}
    answers = [
        await client.post("/v1/search", content=b"{", headers=headers),
        await client.post("/v1/search", content=b'{"query": "\xff"}', headers=headers),
        await client.post("/v1/search", content=b'{"query": [{"type":"text","text":"x","weight":NaN}]}'),
        await client.post("/v1/search", content=b"[" * 100_000),
        *[
            await client.post("/v1/search", content=each)
            for each in (b'{"query": "\\ud800"}', b'{"query": "a', b"")
        ],
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
    assert [answer.status_code for answer in answers] == [422] * 8 + [413, 404, 405] + [422] * 4
    for answer in answers:
        assert set(answer.json()["error"]) == {"type", "message", "param", "request_id"}


async def test_a_failure_of_our_own_hides_its_cause_and_keeps_the_id(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(type(shop.app.state.services.catalog.products), "get", fail)
    answer = await shop.client.get("/v1/products/p", headers={"X-Request-ID": "me-2"})
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (500, "internal")
    assert "secret" not in answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert error["request_id"] == answer.headers["x-request-id"] == "me-2"


async def test_a_stream_without_a_length_is_cut_at_the_limit(shop: Shop) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 10_000

    answer = await shop.client.put("/v1/products/p", content=endless())
    assert answer.status_code == 413


async def test_a_form_of_more_files_than_are_taken_is_refused(shop: Shop) -> None:
    files = [("photo", (f"{number}.png", b"x")) for number in range(MAX_FILES + 1)]
    answer = await shop.client.post("/v1/search", data={"request": "{}"}, files=files)
    assert answer.status_code == 413
    assert answer.json()["error"]["message"] == f"Too many files. Maximum number of files is {MAX_FILES}."
