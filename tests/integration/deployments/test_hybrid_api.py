"""Keyword search over HTTP: beside vectors, instead of them, and while every encoder is away."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.shop import Shop, ids, image_part, open_shop, png

pytestmark = pytest.mark.anyio
RED, KIMONO = image_part(png("red")), {"type": "text", "text": "kimono"}


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path) as opened:
        for color in ("red", "lime", "blue"):
            title = f"Plain {color} shirt"
            await opened.put(f"{color}-1", png(color), title=title, attributes={"price": 5})
        kimono = {"title": "Kimono", "description": "Cut by hand.", "attributes": {"price": 50}}
        await opened.put("odd", png("white"), **kimono)
        yield opened


async def test_text_to_the_ensemble_is_searched_by_keywords_too(shop: Shop) -> None:
    answer = await shop.search(query="kimono")
    assert ids(answer)[0] == "odd"
    assert (answer["keyword_weight"], answer["degraded"]) == (0.5, False)
    assert [used["model"] for used in answer["models_used"]] == ["first", "second"]
    assert "keyword" in answer["timings_ms"]
    assert ids(await shop.search(query="lime-1"))[0] == "lime-1"


async def test_images_and_single_models_are_ranked_by_vectors_unless_asked(shop: Shop) -> None:
    for body in ({"query": [RED]}, {"query": [RED, KIMONO]}, {"query": "kimono", "model": "first"}):
        answer = await shop.search(**body)
        assert answer["keyword_weight"] == 0
        assert "keyword" not in answer["timings_ms"]
    mixed = await shop.search(query=[RED, KIMONO], model="first", keyword_weight=0.6)
    assert (ids(mixed)[0], mixed["keyword_weight"]) == ("odd", 0.6)
    vectors = await shop.search(query="red", keyword_weight=0)
    assert (ids(vectors)[0], vectors["keyword_weight"]) == ("red-1", 0)


async def test_keywords_alone_ask_no_model(shop: Shop) -> None:
    for encoder in shop.encoders.values():
        encoder.away = True
    for model in ("ensemble", "first"):
        answer = await shop.search(query="kimono shirt", model=model, keyword_weight=1)
        assert set(ids(answer)) == {"odd", "red-1", "lime-1", "blue-1"}
        assert (answer["keyword_weight"], answer["models_used"]) == (1, [])
        assert (answer["degraded"], answer["skipped"]) == (False, {})


async def test_text_is_answered_while_every_encoder_is_away(shop: Shop) -> None:
    for encoder in shop.encoders.values():
        encoder.away = True
    answer = await shop.search(query="a plain red shirt", limit=2)
    assert ids(answer)[0] == "red-1"
    assert (answer["degraded"], answer["keyword_weight"], answer["models_used"]) == (True, 1, [])
    assert "not available" in answer["skipped"]["ensemble"]
    pages = [ids(await shop.search(query="shirt", limit=1, offset=n)) for n in range(4)]
    assert sorted(found for page in pages for found in page) == ["blue-1", "lime-1", "red-1"]
    filtered = await shop.search(query="shirt kimono", filter={"price": {"gt": 10}})
    assert ids(filtered) == ["odd"]
    assert ids(await shop.search(query="shirt", exclude=["red-1"])) == ["blue-1", "lime-1"]
    single = await shop.search(query="kimono", model="first", keyword_weight=0.5)
    assert (ids(single), single["skipped"]) == (["odd"], {"first": "first is not available"})


async def test_a_query_that_keywords_cannot_answer_is_still_refused(shop: Shop) -> None:
    for encoder in shop.encoders.values():
        encoder.away = True
    for body in (
        {"query": [RED]},
        {"query": [RED, KIMONO], "keyword_weight": 0.5},
        {"query": "kimono", "keyword_weight": 0},
        {"query": "kimono", "model": "first"},
    ):
        answer = await shop.client.post("/v1/search", json=body)
        assert answer.status_code == 503, answer.text


async def test_text_is_answered_when_all_models_take_images_only(shop: Shop) -> None:
    for encoder in shop.encoders.values():
        encoder.takes_text = False
    answer = await shop.search(query="kimono")
    assert (ids(answer), answer["keyword_weight"], answer["degraded"]) == (["odd"], 1, False)
    assert "cannot encode texts" in answer["skipped"]["ensemble"]
    refused = await shop.client.post("/v1/search", json={"query": "kimono", "model": "first"})
    assert refused.status_code == 422
    assert "cannot encode texts; these can: " in refused.json()["error"]["message"]


async def test_changes_are_found_at_once(shop: Shop) -> None:
    await shop.put("odd", png("white"), title="Poncho")
    assert ids(await shop.search(query="kimono", keyword_weight=1)) == []
    assert ids(await shop.search(query="poncho", keyword_weight=1)) == ["odd"]
    assert (await shop.client.delete("/v1/products/odd")).status_code == 204
    assert ids(await shop.search(query="poncho", keyword_weight=1)) == []


@pytest.mark.parametrize(
    "body",
    [
        {"query": "x", "keyword_weight": 1.1},
        {"query": "x", "keyword_weight": -0.1},
        {"query": "x", "keyword_weight": "half"},
        {"query": [RED], "keyword_weight": 0.5},
        {"query": [{"type": "text", "text": "x", "weight": -1}], "keyword_weight": 1},
    ],
)
async def test_a_weight_without_meaning_is_refused(shop: Shop, body: dict[str, Any]) -> None:
    answer = await shop.client.post("/v1/search", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "keyword_weight"), answer.text


async def test_any_text_but_a_blank_one_and_nul_is_answered(shop: Shop) -> None:
    texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=2000)
    hostile = st.text(st.sampled_from("\"'\\()*:^-+&|!<>{}[]@~ ANDORTNEAR\0%_;"), min_size=1, max_size=50)
    queries: list[str] = ["x" * 2000, '" OR 1=1 --', "NEAR(a, b)", "\0"]

    @settings(max_examples=60)
    @given(texts | hostile)
    def collect(text: str) -> None:
        queries.append(text)

    collect()
    for text in queries:
        answer = await shop.client.post(
            "/v1/search", content=json.dumps({"query": text, "keyword_weight": 1}).encode()
        )
        refused = "\0" in text or not text.strip()
        assert answer.status_code == (422 if refused else 200), answer.text
