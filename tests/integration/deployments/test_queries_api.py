"""Parts of a query over HTTP: boxes, stored images, several products, negative weights."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from core.types import row_key
from tests.support.shop import Shop, ids, image_part, open_shop, png

pytestmark = pytest.mark.anyio
COLORS = ("red", "lime", "blue", "white", "black", "yellow")


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path) as opened:
        for color in COLORS:
            await opened.put(color, png(color))
        yield opened


async def found(shop: Shop, *parts: dict[str, Any], **body: Any) -> list[str]:
    return ids(await shop.search(**{"query": list(parts), "model": "first"} | body))


async def remove_vectors(shop: Shop, model: str, product_id: str) -> None:
    """Take a product's vectors out of one model's collection."""
    services = shop.app.state.services
    product = services.catalog.products.get(product_id)
    info = await shop.encoders[model].describe()
    keys = [row_key(image.image_id, image.revision) for image in product.images]
    services.search._searches[model]._store.delete(info.collection, keys)


def product(product_id: str, weight: float = 1.0) -> dict[str, Any]:
    return {"type": "product_id", "product_id": product_id, "weight": weight}


@pytest.mark.parametrize(("x", "color"), [(0.0, "red"), (1 / 3, "lime"), (2 / 3, "blue")])
async def test_a_box_chooses_what_is_looked_for(shop: Shop, x: float, color: str) -> None:
    box = {"x": x, "y": 0.25, "width": 1 / 3, "height": 0.5}
    stripes = png("red", "lime", "blue")
    for model in ("first", "ensemble"):
        assert (await found(shop, image_part(stripes, box=box), model=model, limit=1)) == [color]
    request = {"query": [{"type": "image", "upload": "photo", "box": box}], "model": "first", "limit": 1}
    answer = await shop.client.post(
        "/v1/search", data={"request": json.dumps(request)}, files={"photo": ("a.png", stripes)}
    )
    assert answer.json()["results"][0]["product_id"] == color


@pytest.mark.parametrize(
    ("box", "param"),
    [
        ({"x": 0, "y": 0, "width": 0, "height": 1}, "query[0].box.width"),
        ({"x": 0, "y": 0, "width": 1, "height": -0.1}, "query[0].box.height"),
        ({"x": 0.6, "y": 0, "width": 0.5, "height": 1}, "query[0].box.width"),
        ({"x": 0, "y": 0.6, "width": 1, "height": 0.5}, "query[0].box.height"),
        ({"x": -0.1, "y": 0, "width": 0.5, "height": 1}, "query[0].box.x"),
        ({"x": 0, "y": 1, "width": 0.5, "height": 0.1}, "query[0].box.y"),
        ({"x": 0, "y": 0, "width": 1}, "query[0].box.height"),
        ({"x": 0, "y": 0, "width": 1, "height": 1, "unit": "px"}, "query[0].box.unit"),
        ("all", "query[0].box"),
    ],
)
async def test_a_box_without_an_area_or_outside_is_refused(shop: Shop, box: Any, param: str) -> None:
    answer = await shop.client.post("/v1/search", json={"query": [image_part(png("red"), box=box)]})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, param), answer.text


async def test_the_rounding_of_pixels_is_no_mistake(shop: Shop) -> None:
    box = {"x": 2 / 3, "y": 0, "width": 1 / 3 + 1e-12, "height": 1}
    assert (await found(shop, image_part(png("red", "red", "blue"), box=box), limit=1)) == ["blue"]


async def test_a_stored_image_is_a_part(shop: Shop) -> None:
    _, blue = await shop.put("both", png("red"), png("blue"))
    part = {"type": "image_id", "image_id": blue}
    assert (await found(shop, part, limit=1)) == ["blue"]
    assert (await found(shop, part, limit=2, include_query_products=True)) == ["blue", "both"]
    missing = await shop.client.post("/v1/search", json={"query": [part | {"image_id": "none"}]})
    assert (missing.status_code, missing.json()["error"]["param"]) == (404, "query[0].image_id")


async def test_several_products_seen_and_unseen_recommend_others(shop: Shop) -> None:
    await shop.put("red-lime", png("red", "lime"))
    await shop.put("red-lime-blue", png("red", "lime", "blue"))
    seen = [product("red"), product("lime"), image_part(png("red", "lime"))]
    for model in ("first", "ensemble"):
        assert (await found(shop, *seen, model=model, limit=2)) == ["red-lime", "red-lime-blue"]
        pushed = await found(shop, *seen, product("red-lime", -2), product("blue", 2), model=model, limit=9)
        assert pushed[0] == "red-lime-blue"
        assert not {"red", "lime", "blue", "red-lime"} & set(pushed)


async def test_a_model_without_a_vector_of_a_product_says_so_and_the_ensemble_goes_on(shop: Shop) -> None:
    await shop.put("scarlet", png("#f01010"))
    await remove_vectors(shop, "first", "red")
    answer = await shop.client.post("/v1/search", json={"query": [product("red")], "model": "first"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (409, "conflict")
    assert "'red' has no embedding from model 'first'" in answer.json()["error"]["message"]
    fused = (await shop.client.post("/v1/search", json={"query": [product("red")], "limit": 1})).json()
    assert [result["product_id"] for result in fused["results"]] == ["scarlet"]
    assert fused["degraded"]
    assert list(fused["skipped"]) == ["first"]
    assert [used["model"] for used in fused["models_used"]] == ["second"]


async def test_this_but_in_another_color(shop: Shop) -> None:
    await shop.put("red-white", png("red", "white"))
    await shop.put("lime-white", png("lime", "white"))
    sentence = {"type": "text", "text": "lime", "weight": 1}
    less = {"type": "text", "text": "red", "weight": -0.5}
    for model in ("first", "second", "ensemble"):
        others = await found(shop, image_part(png("red", "white")), sentence, less, model=model, limit=1)
        assert others == ["lime-white"]


async def test_weighted_scores_are_exact_over_http(shop: Shop) -> None:
    answer = await shop.client.post(
        "/v1/search", json={"query": [image_part(png("red"))], "fusion": "weighted", "limit": 6}
    )
    content = answer.json()
    scores = {result["product_id"]: result["score"] for result in content["results"]}
    assert scores["red"] == pytest.approx(1.0)
    assert min(scores.values()) == pytest.approx(0.0)
    assert content["incomplete"] == {}
