"""Models side by side over HTTP."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from core.types import Encoded, EncoderInput
from tests.support.shop import Shop, image_part, open_shop, png

pytestmark = pytest.mark.anyio
COLORS = ("red", "lime", "blue", "white", "black")
RED = [image_part(png("red"))]


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path) as opened:
        for number, color in enumerate(COLORS):
            await opened.put(color, png(color), attributes={"number": number})
        for encoder in opened.encoders.values():
            encoder.calls = 0
        yield opened


async def compare(shop: Shop, **body: Any) -> dict[str, Any]:
    return await shop.ask("/v1/compare", **body)


async def test_every_model_and_the_ensemble_stand_side_by_side(shop: Shop) -> None:
    answer = await compare(shop, query=RED, limit=3)
    assert [each["model"] for each in answer["lists"]] == ["first", "second", "ensemble"]
    for each in answer["lists"]:
        assert len(each["results"]) == 3
        assert each["results"][0]["product_id"] == "red"
        assert set(answer["products"]) >= {result["product_id"] for result in each["results"]}
    assert answer["products"]["red"]["images"]
    assert [used["model"] for used in answer["lists"][2]["models_used"]] == ["first", "second"]
    assert {"encode", "search", "hydrate"} <= set(answer["lists"][0]["timings_ms"])
    assert {"first.encode", "second.search", "fuse"} <= set(answer["lists"][2]["timings_ms"])
    assert [each["models"] for each in answer["agreements"]] == [
        ["first", "second"],
        ["first", "ensemble"],
        ["second", "ensemble"],
    ]
    assert answer["agreements"][0] == {
        "models": ["first", "second"],
        "shared": 3,
        "jaccard": 1.0,
        "rank_correlation": 1.0,
    }
    assert (answer["skipped"], answer["degraded"]) == ({}, False)


async def test_each_encoder_embeds_the_query_once(shop: Shop) -> None:
    await compare(shop, query=RED)
    assert [encoder.calls for encoder in shop.encoders.values()] == [1, 1]


async def test_a_list_is_what_a_search_answers(shop: Shop) -> None:
    body: dict[str, Any] = {
        "query": [{"type": "text", "text": "blue"}, image_part(png("white"))],
        "filter": {"number": {"lt": 4}},
        "exclude": ["red"],
        "limit": 2,
        "offset": 1,
    }
    options = {"fusion": "weighted", "weights": {"first": 3}}
    compared = await compare(shop, **body, **options)
    for each in compared["lists"]:
        extra = options if each["model"] == "ensemble" else {}
        found = await shop.client.post("/v1/search", json=body | extra | {"model": each["model"]})
        expected = [(result["product_id"], result["score"]) for result in found.json()["results"]]
        assert [(result["product_id"], result["score"]) for result in each["results"]] == expected


async def test_a_model_that_cannot_is_skipped_with_the_reason(shop: Shop) -> None:
    shop.encoders["second"].takes_text = False
    answer = await compare(shop, query=[{"type": "text", "text": "red"}], keyword_weight=0)
    assert [each["model"] for each in answer["lists"]] == ["first", "ensemble"]
    assert "cannot encode texts; these can: first" in answer["skipped"]["second"]
    assert not answer["degraded"]


async def test_a_model_that_is_away_degrades_the_answer(shop: Shop) -> None:
    shop.encoders["second"].away = True
    answer = await compare(shop, query="red", models=["second", "first"])
    assert [each["model"] for each in answer["lists"]] == ["first"]
    assert answer["skipped"] == {"second": "second is not available"}
    assert answer["degraded"]
    assert answer["agreements"] == []
    shop.encoders["first"].away = True
    alone = await shop.client.post("/v1/compare", json={"query": "red", "models": ["second", "first"]})
    assert alone.status_code == 503


async def test_a_bug_of_one_model_leaves_the_lists_of_the_others(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_inputs: Sequence[EncoderInput]) -> Encoded:
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr(shop.encoders["second"], "encode", fail)
    answer = await compare(shop, query="red", models=["first", "second"])
    assert [each["model"] for each in answer["lists"]] == ["first"]
    assert "internal error" in answer["skipped"]["second"]
    assert answer["degraded"]
    assert "ZeroDivisionError: a bug of ours" in caplog.text
    alone = await shop.client.post("/v1/compare", json={"query": "red", "models": ["second"]})
    assert (alone.status_code, alone.json()["error"]["type"]) == (500, "internal")


async def test_a_model_that_hangs_does_not_take_the_other_lists_with_it(shop: Shop) -> None:
    shop.encoders["second"].delay_s = 60
    answer = await shop.client.post(
        "/v1/compare",
        json={"query": "red", "models": ["first", "second"]},
        headers={"X-Request-Timeout-Seconds": "4"},
    )
    assert answer.status_code == 200, answer.text
    assert [each["model"] for each in answer.json()["lists"]] == ["first"]
    assert "did not embed the query within" in answer.json()["skipped"]["second"]
    assert answer.json()["degraded"]


async def test_uploads_are_compared_too(shop: Shop) -> None:
    answer = await shop.client.post(
        "/v1/compare",
        data={"request": '{"models": ["first", "second"]}'},
        files={"image": ("a.png", png("lime"))},
    )
    assert [each["results"][0]["product_id"] for each in answer.json()["lists"]] == ["lime", "lime"]


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"query": "red", "models": ["first", "third"]}, 404, "models[1]"),
        ({"query": "red", "models": []}, 422, "models"),
        ({"query": "red", "model": "first"}, 422, "model"),
        ({"query": "red", "models": ["first"], "weights": {"first": 1}}, 422, "weights"),
        ({"query": "red", "models": ["first"], "fusion": "rrf"}, 422, "fusion"),
        ({"query": "red", "weights": {"third": 1}, "models": ["ensemble"], "limit": 0}, 422, "limit"),
        ({"query": [{"type": "image", "image": "AAAA"}]}, 422, "query[0]"),
        ({}, 422, "query"),
    ],
)
async def test_a_bad_comparison_is_refused_by_the_field(
    shop: Shop, body: dict[str, Any], status: int, param: str
) -> None:
    answer = await shop.client.post("/v1/compare", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), answer.text
