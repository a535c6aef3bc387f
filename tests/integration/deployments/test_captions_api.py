"""Captions over HTTP: asked for, and shown with the images of products."""

from typing import Any

import httpx
import pytest

from catalog.opening import Catalog
from core.indexing import Captioner, CaptionReport
from models.config import CaptionConfig
from tests.support.image_files import b64, png
from tests.support.local_encoder import LocalEncoder

pytestmark = pytest.mark.anyio


@pytest.fixture
def encoders(can_write: dict[str, bool]) -> dict[str, LocalEncoder]:
    return {
        name: LocalEncoder(name, captions=CaptionConfig() if can else None) for name, can in can_write.items()
    }


@pytest.fixture
def can_write() -> dict[str, bool]:
    return {"plain": False, "writer": True, "second": True}


async def caption(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    return await client.post("/v1/caption", json=body)


async def test_the_first_model_that_can_describes_an_image(
    client: httpx.AsyncClient, encoders: dict[str, LocalEncoder]
) -> None:
    answer = await caption(client, image=b64(png("red")))
    assert answer.status_code == 200, answer.text
    body = answer.json()
    info = await encoders["writer"].describe()
    assert (body["model"], body["caption"]) == ("writer", "a red thing")
    assert body["fingerprint"] == info.captions != info.fingerprint
    assert body["request_id"] == answer.headers["x-request-id"]
    assert "timings_ms" in body


async def test_a_model_is_chosen_by_name_in_json_and_in_a_form(client: httpx.AsyncClient) -> None:
    uri = "data:image/png;base64," + b64(png("lime"))
    assert (await caption(client, image=uri, model="second")).json()["model"] == "second"
    form = await client.post("/v1/caption", files={"image": ("a.png", png("blue"))}, data={"model": "second"})
    assert (form.json()["model"], form.json()["caption"]) == ("second", "a blue thing")


@pytest.mark.parametrize(
    ("body", "status", "param", "message"),
    [
        ({}, 422, "body", "give one of"),
        ({"image": "x", "image_url": "http://a/b"}, 422, "body", "give one of"),
        ({"image_url": "http://127.0.0.1/a.png"}, 422, "image_url", "public address"),
        ({"image": "%%%"}, 422, "image", "base64"),
        ({"image": b64(b"words")}, 422, "image", "not an image"),
        ({"image": b64(png("red")), "model": "plain"}, 422, "model", "these do: writer, second"),
        ({"image": b64(png("red")), "model": "nobody"}, 404, "model", "models: plain"),
        ({"image": b64(png("red")), "prompt": "a"}, 422, "prompt", "not permitted"),
    ],
)
async def test_a_bad_request_gets_the_reason(
    client: httpx.AsyncClient, body: dict[str, Any], status: int, param: str, message: str
) -> None:
    answer = await caption(client, **body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, param), answer.text
    assert message in error["message"]


async def test_a_form_without_one_file_is_refused(client: httpx.AsyncClient) -> None:
    files = [("image", ("a.png", png("red"))), ("image", ("b.png", png("red")))]
    for sent in ({"files": files}, {"files": {"photo": png("red")}}, {"files": {"model": png("red")}}):
        answer = await client.post("/v1/caption", **sent)  # type: ignore[arg-type]
        assert answer.status_code in (413, 422), answer.text


@pytest.mark.parametrize("can_write", [{"plain": False}])
async def test_that_no_model_writes_captions_is_reported(client: httpx.AsyncClient) -> None:
    for body in ({}, {"model": "plain"}):
        answer = await caption(client, image=b64(png("red")), **body)
        assert answer.status_code == 422
        assert "set `captions` of a BLIP-2 encoder" in answer.json()["error"]["message"]


async def test_a_model_that_is_away_is_not_taken_for_one_that_cannot(
    client: httpx.AsyncClient, encoders: dict[str, LocalEncoder]
) -> None:
    encoders["writer"].away = True
    assert (await caption(client, image=b64(png("red")))).json()["model"] == "second"
    assert (await caption(client, image=b64(png("red")), model="writer")).status_code == 503
    encoders["second"].away = True
    answer = await caption(client, image=b64(png("red")))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


async def test_models_say_whether_they_write_captions(client: httpx.AsyncClient) -> None:
    models = (await client.get("/v1/models")).json()
    assert {model["model"]: model["captions"] for model in models} == {
        "plain": False,
        "writer": True,
        "second": True,
    }


async def test_captions_of_the_catalog_are_shown_and_searched(
    client: httpx.AsyncClient, encoders: dict[str, LocalEncoder], catalog: Catalog
) -> None:
    body = {"images": [b64(png("red"))]}
    written = (await client.put("/v1/products/p", json=body)).json()
    assert written["product"]["images"][0]["caption"] is None
    captioning = Captioner(encoders["writer"], catalog.captions, catalog.blobs)
    assert await captioning.repair() == CaptionReport(written=1)
    product = (await client.get("/v1/products/p")).json()
    assert product["images"][0]["caption"] == "a red thing"
    found = catalog.keyword_index.search("thing", 5)
    assert [hit.product_id for hit in found] == ["p"]
    stats = (await client.get("/v1/stats")).json()
    done = {"images": 1, "captioned": 1, "failed": 0, "missing": 0}
    assert stats["captions"] == {"writer": done, "second": {**done, "captioned": 0, "missing": 1}}
