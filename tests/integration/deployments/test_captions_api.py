"""Captions over HTTP: asked for, and shown with the images of products."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from catalog.database import CatalogConfig
from catalog.opening import Catalog, open_catalog
from core.ensemble import EnsembleSearch
from core.indexing import Captioner, CaptionReport
from core.search import ModelSearch
from deployments.config import GatewayArgs, ServedModels
from deployments.http.app import create_app
from deployments.services.assembly import assemble
from milvus.config import MilvusConfig
from milvus.memory import MemoryStore
from models.config import CaptionConfig
from tests.support.image_files import b64, png
from tests.support.local_encoder import LocalEncoder

pytestmark = pytest.mark.anyio


class Service:
    """The application over encoders that write captions, or not, by their names."""

    def __init__(self, folder: Path, writes: dict[str, bool]) -> None:
        config = CatalogConfig(database_url=f"sqlite:///{folder}/c.sqlite", blobs_url=str(folder / "blobs"))
        milvus = MilvusConfig(uri="http://127.0.0.1:1")
        args = GatewayArgs(catalog=config, milvus=milvus, counts_ttl_s=0)
        self.catalog: Catalog = open_catalog(config)
        self.encoders = {
            name: LocalEncoder(name, captions=CaptionConfig() if can else None)
            for name, can in writes.items()
        }
        store = MemoryStore()
        searches = {name: ModelSearch(encoder, store) for name, encoder in self.encoders.items()}
        self.app = create_app(args)
        self.app.state.services = assemble(
            args,
            ServedModels(models=tuple(self.encoders)),
            self.catalog,
            store,
            lambda name: self.encoders[name],
            EnsembleSearch(searches, deadline_s=5),
        )
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://localhost")

    async def caption(self, **body: Any) -> httpx.Response:
        return await self.client.post("/v1/caption", json=body)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    opened = Service(tmp_path, {"plain": False, "writer": True, "second": True})
    async with opened.client:
        yield opened
    opened.catalog.close()


async def test_the_first_model_that_can_describes_an_image(service: Service) -> None:
    answer = await service.caption(image=b64(png("red")))
    assert answer.status_code == 200, answer.text
    body = answer.json()
    info = await service.encoders["writer"].describe()
    assert (body["model"], body["caption"]) == ("writer", "a red thing")
    assert body["fingerprint"] == info.captions != info.fingerprint
    assert body["request_id"] == answer.headers["x-request-id"]
    assert "timings_ms" in body


async def test_a_model_is_chosen_by_name_in_json_and_in_a_form(service: Service) -> None:
    uri = "data:image/png;base64," + b64(png("lime"))
    assert (await service.caption(image=uri, model="second")).json()["model"] == "second"
    form = await service.client.post(
        "/v1/caption", files={"image": ("a.png", png("blue"))}, data={"model": "second"}
    )
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
    service: Service, body: dict[str, Any], status: int, param: str, message: str
) -> None:
    answer = await service.caption(**body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, param), answer.text
    assert message in error["message"]


async def test_a_form_without_one_file_is_refused(service: Service) -> None:
    files = [("image", ("a.png", png("red"))), ("image", ("b.png", png("red")))]
    for sent in ({"files": files}, {"files": {"photo": png("red")}}, {"files": {"model": png("red")}}):
        answer = await service.client.post("/v1/caption", **sent)  # type: ignore[arg-type]
        assert answer.status_code in (413, 422), answer.text


async def test_that_no_model_writes_captions_is_reported(tmp_path: Path) -> None:
    service = Service(tmp_path, {"plain": False})
    async with service.client:
        for body in ({}, {"model": "plain"}):
            answer = await service.caption(image=b64(png("red")), **body)
            assert answer.status_code == 422
            assert "set `captions` of a BLIP-2 encoder" in answer.json()["error"]["message"]
    service.catalog.close()


async def test_a_model_that_is_away_is_not_taken_for_one_that_cannot(service: Service) -> None:
    service.encoders["writer"].away = True
    assert (await service.caption(image=b64(png("red")))).json()["model"] == "second"
    assert (await service.caption(image=b64(png("red")), model="writer")).status_code == 503
    service.encoders["second"].away = True
    answer = await service.caption(image=b64(png("red")))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


async def test_models_say_whether_they_write_captions(service: Service) -> None:
    models = (await service.client.get("/v1/models")).json()
    assert {model["model"]: model["captions"] for model in models} == {
        "plain": False,
        "writer": True,
        "second": True,
    }


async def test_captions_of_the_catalog_are_shown_and_searched(service: Service) -> None:
    body = {"images": [b64(png("red"))]}
    written = (await service.client.put("/v1/products/p", json=body)).json()
    assert written["product"]["images"][0]["caption"] is None
    captioning = Captioner(service.encoders["writer"], service.catalog.captions, service.catalog.blobs)
    assert await captioning.repair() == CaptionReport(written=1)
    product = (await service.client.get("/v1/products/p")).json()
    assert product["images"][0]["caption"] == "a red thing"
    found = service.catalog.keyword_index.search("thing", 5)
    assert [hit.product_id for hit in found] == ["p"]
    stats = (await service.client.get("/v1/stats")).json()
    done = {"images": 1, "captioned": 1, "failed": 0, "missing": 0}
    assert stats["captions"] == {"writer": done, "second": {**done, "captioned": 0, "missing": 1}}
