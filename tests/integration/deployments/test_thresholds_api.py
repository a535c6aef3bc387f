"""Thresholds of a search: "nothing like this here" is an answer, and impossible rates are refused."""

import io
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from catalog.products import PutProduct
from core.calibration import CalibrationConfig
from core.types import NewImage, ProductImage
from milvus.memory import MemoryStore
from tests.support.local_encoder import LocalEncoder
from tests.support.local_service import local_service
from tests.support.shop import image_part
from tests.support.vector_stores import row

pytestmark = pytest.mark.anyio
PRODUCTS = 150


def image(rng: np.random.Generator, colors: int) -> bytes:
    """Pixels of so many colors: the fake encoder sees their shares."""
    codes = rng.choice(64, colors, replace=False)
    palette = np.stack([codes // 16, codes // 4 % 4, codes % 4], axis=1) * 64 + 32
    pixels = palette[rng.integers(0, colors, 256)].reshape(16, 16, 3).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    rng = np.random.default_rng(2)
    return [image(rng, 2) for _ in range(PRODUCTS)]


@pytest.fixture(scope="module")
async def client(
    tmp_path_factory: pytest.TempPathFactory, images: list[bytes]
) -> AsyncIterator[httpx.AsyncClient]:
    async with service(tmp_path_factory.mktemp("thresholds"), images) as opened:
        yield opened


@asynccontextmanager
async def service(folder: Path, images: Sequence[bytes]) -> AsyncIterator[httpx.AsyncClient]:
    """A service with an indexed product for each image."""
    store, encoders = MemoryStore(), {name: LocalEncoder(name) for name in ("first", "second")}
    with local_service(folder, encoders, store, calibration=CalibrationConfig(sample_products=120)) as app:
        products = app.state.services.catalog.products
        files = [NewImage(data, "image/png", 16, 16) for data in images]
        products.write([PutProduct(f"p{n}", f"thing {n}", "", {}, [file]) for n, file in enumerate(files)])
        for number, data in enumerate(images):
            await _index(store, encoders, products.get(f"p{number}").images[0], data)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as opened:
            yield opened


async def _index(
    store: MemoryStore, encoders: dict[str, LocalEncoder], image: ProductImage, data: bytes
) -> None:
    for encoder in encoders.values():
        encoded = await encoder.encode([data])
        vector = encoded.vectors[0]
        assert isinstance(vector, np.ndarray)
        store.ensure_collection(encoded.info.collection, encoded.info.dimension)
        rows = [row(image.image_id, vector, image.product_id, image.revision)]
        store.upsert(encoded.info.collection, rows)


async def ask(client: httpx.AsyncClient, data: bytes, **options: Any) -> dict[str, Any]:
    answer = await client.post("/v1/search", json={"query": [image_part(data)], **options})
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json()
    return content


async def test_a_score_threshold_cuts_the_page(client: httpx.AsyncClient, images: list[bytes]) -> None:
    whole = await ask(client, images[3], model="first", limit=100)
    scores = [result["score"] for result in whole["results"]]
    assert whole["thresholds"] == {}
    cut = await ask(client, images[3], model="first", limit=100, score_threshold=scores[4])
    kept = [score for score in scores if score >= scores[4]]
    assert [result["score"] for result in cut["results"]] == kept
    assert cut["thresholds"] == {"first": scores[4]}
    page = await ask(client, images[3], model="first", limit=2, offset=1, score_threshold=scores[4])
    assert page["results"] == whole["results"][1:3]


@pytest.mark.parametrize("model", ["first", "ensemble"])
async def test_strangers_find_nothing_and_products_find_themselves(
    client: httpx.AsyncClient, images: list[bytes], model: str
) -> None:
    rng = np.random.default_rng(9)
    options = {"model": model, "max_false_match_rate": 0.1}
    for _ in range(10):
        stranger = await ask(client, image(rng, 16), **options)
        assert stranger["results"] == []
        assert set(stranger["thresholds"]) == ({"first"} if model == "first" else {"first", "second"})
        assert len(stranger["models_used"]) == len(stranger["thresholds"])
    for number in range(0, PRODUCTS, 15):
        found = await ask(client, images[number], **options)
        assert f"p{number}" in [result["product_id"] for result in found["results"]]
        assert 0 < min(found["thresholds"].values()) < 1


async def alike(client: httpx.AsyncClient, number: int, **options: Any) -> dict[str, Any]:
    answer = await client.get(f"/v1/products/p{number}/similar", params=options)
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json()
    return content


async def test_more_like_this_takes_thresholds_too(client: httpx.AsyncClient) -> None:
    whole = await alike(client, 3, model="first", limit=PRODUCTS)
    smallest = whole["results"][4]["score"]
    cut = await alike(client, 3, model="first", limit=PRODUCTS, score_threshold=smallest)
    kept = [result for result in whole["results"] if result["score"] >= smallest]
    assert (cut["results"], cut["thresholds"]) == (kept, {"first": smallest})
    part = {"type": "product_id", "product_id": "p3"}
    for model in ("first", "ensemble"):
        options: dict[str, Any] = {"model": model, "max_false_match_rate": 0.3, "limit": PRODUCTS}
        searched = await client.post("/v1/search", json={"query": [part], **options})
        near = await alike(client, 3, **options)
        assert (near["results"], near["thresholds"]) == (
            searched.json()["results"],
            searched.json()["thresholds"],
        )
        assert len(near["results"]) < PRODUCTS - 1
    for bad in ({"score_threshold": 0.5}, {"max_false_match_rate": 1}, {"score_threshold": "nan"}):
        answer = await client.get("/v1/products/p3/similar", params=bad)
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, next(iter(bad)))


async def test_a_smaller_rate_asks_for_a_higher_score(client: httpx.AsyncClient, images: list[bytes]) -> None:
    thresholds = []
    for rate in (0.5, 0.2, 0.05, 0.01):
        found = await ask(client, images[0], model="first", max_false_match_rate=rate)
        thresholds.append(found["thresholds"]["first"])
    assert thresholds == sorted(thresholds)
    assert thresholds[0] < thresholds[-1]


BAD: dict[str, tuple[dict[str, Any], int, str]] = {
    "both": ({"score_threshold": 0.5, "max_false_match_rate": 0.1, "model": "first"}, 422, "score_threshold"),
    "cosine of the ensemble": ({"score_threshold": 0.5}, 422, "score_threshold"),
    "no cosine": ({"score_threshold": 1.5, "model": "first"}, 422, "score_threshold"),
    "never": ({"max_false_match_rate": 0}, 422, "max_false_match_rate"),
    "always": ({"max_false_match_rate": 1}, 422, "max_false_match_rate"),
    "too small a rate": ({"max_false_match_rate": 0.001, "model": "first"}, 409, "max_false_match_rate"),
    "too small for all": ({"max_false_match_rate": 0.001}, 409, "max_false_match_rate"),
    "by text too": ({"max_false_match_rate": 0.1, "keyword_weight": 0.5}, 422, "keyword_weight"),
}


@pytest.mark.parametrize("case", BAD)
async def test_a_threshold_that_cannot_be_kept_is_refused(client: httpx.AsyncClient, case: str) -> None:
    options, status, param = BAD[case]
    answer = await client.post("/v1/search", json={"query": "red", **options})
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), answer.text


async def test_a_small_catalog_says_what_it_takes(tmp_path: Path, images: list[bytes]) -> None:
    query = {"query": "red", "model": "first", "max_false_match_rate": 0.1}
    async with service(tmp_path, images[:5]) as client:
        answer = await client.post("/v1/search", json=query)
    assert answer.status_code == 409
    assert "100 products" in answer.json()["error"]["message"]
    assert "there are 5" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "options", [{"model": "first"}, {}, {"fusion": "weighted"}, {"max_false_match_rate": 0.9}]
)
async def test_pages_put_together_are_one_long_page(
    client: httpx.AsyncClient, images: list[bytes], options: dict[str, Any]
) -> None:
    whole = await ask(client, images[7], limit=PRODUCTS, **options)
    pages = [await ask(client, images[7], limit=13, offset=n, **options) for n in range(0, PRODUCTS, 13)]
    together = [result for page in pages for result in page["results"]]
    assert [each["product_id"] for each in together] == [each["product_id"] for each in whole["results"]]
    assert len(together) == PRODUCTS or "max_false_match_rate" in options
