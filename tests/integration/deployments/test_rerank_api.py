"""Searches with a second stage over HTTP: its order, its pages, its refusals, and what it says of itself."""

import asyncio
import io
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from core.errors import DeadlineExceeded
from core.types import Matched, NamedFile
from tests.support.shop import Shop, ids, image_part, open_shop, png

pytestmark = pytest.mark.anyio
RERANK = {"model": "second", "depth": 3}


def halves(first: tuple[int, int, int], second: tuple[int, int, int], share: int = 8) -> bytes:
    """An image whose first `share` of 16 rows have one color and the others another."""
    image = Image.new("RGB", (16, 16), second)
    image.paste(first, (0, 0, 16, share))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    """By vectors "red" finds glare, then fire, then the rest by id; only fire's mean color is nearest to red."""
    async with open_shop(tmp_path) as opened:
        await opened.put("glare", halves((255, 0, 0), (255, 255, 255), 13))
        await opened.put("fire", halves((255, 0, 0), (240, 65, 0)))
        for color in ("blue", "lime", "white"):
            await opened.put(color, png(color))
        for encoder in opened.encoders.values():
            encoder.files.clear()
        yield opened


async def test_the_first_products_are_ordered_by_the_matching_head(shop: Shop) -> None:
    body: dict[str, Any] = {"query": "red", "model": "first"}
    plain = await shop.search(**body)
    assert ids(plain) == ["glare", "fire", "blue", "lime", "white"]
    assert plain["rerank"] is None
    assert {hit["rerank_score"] for hit in plain["results"]} == {None}
    answer = await shop.search(**body, rerank=RERANK)
    assert ids(answer) == ["fire", "glare", "blue", "lime", "white"]
    assert [hit["rerank_score"] for hit in answer["results"]] == [1.0, 0.0, 0.0, None, None]
    scores = {hit["product_id"]: hit["score"] for hit in plain["results"]}
    assert {hit["product_id"]: hit["score"] for hit in answer["results"]} == scores, "cosines stay"
    info = await shop.encoders["second"].describe()
    assert answer["rerank"] == {
        **{"model": "second", "fingerprint": info.matching, "depth": 3, "reranked": 3, "skipped": {}}
    }
    assert answer["degraded"] is False
    assert "rerank" in answer["timings_ms"]


@pytest.mark.parametrize("model", ["first", "ensemble"])
async def test_pages_of_any_size_are_cut_from_one_order(shop: Shop, model: str) -> None:
    body = {"query": "red", "model": model, "keyword_weight": 0, "rerank": RERANK}
    whole = ids(await shop.search(**body, limit=5))
    assert whole[0] == "fire"
    for size in (1, 2, 3, 4):
        pages = [await shop.search(**body, limit=size, offset=offset) for offset in range(0, 5, size)]
        assert [product for page in pages for product in ids(page)] == whole


async def test_a_page_behind_the_depth_matches_nothing(shop: Shop) -> None:
    answer = await shop.search(query="red", model="first", rerank=RERANK, limit=2, offset=3)
    assert ids(answer) == ["lime", "white"]
    assert (answer["rerank"]["reranked"], answer["rerank"]["skipped"]) == (0, {})
    assert shop.encoders["second"].files == []


async def test_features_that_the_encoder_holds_need_no_file(shop: Shop) -> None:
    for text in ("red", "blue"):
        await shop.search(query=text, model="first", rerank={"model": "second", "depth": 5})
    files = shop.encoders["second"].files
    assert len(files) == len(set(files)) == 5


async def test_lists_side_by_side_are_reranked_by_one_set_of_scores(shop: Shop) -> None:
    answer = await shop.ask("/v1/compare", query="red", keyword_weight=0, rerank=RERANK)
    assert [each["model"] for each in answer["lists"]] == ["first", "second", "ensemble"]
    for each in answer["lists"]:
        assert each["results"][0]["product_id"] == "fire"
        assert each["results"][0]["rerank_score"] == 1.0
        assert each["rerank"]["reranked"] == 3
    files = shop.encoders["second"].files
    assert len(files) == len(set(files))


async def test_a_text_beside_an_image_is_what_is_matched(shop: Shop) -> None:
    query = [image_part(png("red")), {"type": "text", "text": "red"}]
    answer = await shop.search(query=query, model="first", rerank=RERANK)
    assert ids(answer)[0] == "fire"


async def test_a_multipart_search_is_reranked_too(shop: Shop) -> None:
    answer = await shop.client.post(
        "/v1/search",
        data={"request": '{"query": "red", "model": "first", "rerank": {"model": "second"}}'},
        files={"photo": png("red")},
    )
    assert answer.status_code == 200
    assert answer.json()["results"][0]["product_id"] == "fire"


async def test_thresholds_apply_before(shop: Shop) -> None:
    answer = await shop.search(query="red", model="first", score_threshold=0.9, rerank=RERANK)
    assert ids(answer) == ["glare"]
    assert answer["rerank"]["reranked"] == 1


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"query": [image_part(png("red"))], "rerank": RERANK}, "rerank", "needs text"),
        (
            {
                "query": [{"type": "text", "text": "blue", "weight": -1}, image_part(png("red"))],
                "rerank": RERANK,
            },
            *("rerank", "text of a positive weight"),
        ),
        ({"query": "red", "rerank": {"model": "nobody"}}, "rerank.model", "no model 'nobody'"),
        ({"query": "red", "rerank": {"model": "first"}}, "rerank.model", "with a matching head: second"),
        (
            {"query": "red", "rerank": {"model": "second", "depth": 0}},
            "rerank.depth",
            "greater than or equal to 1",
        ),
        (
            {"query": "red", "rerank": {"model": "second", "depth": 501}},
            "rerank.depth",
            "less than or equal to 500",
        ),
        ({"query": "red", "rerank": {"model": "second", "depth": "all"}}, "rerank.depth", "integer"),
        ({"query": "red", "rerank": {"depth": 5}}, "rerank.model", ""),
        ({"query": "red", "rerank": {"model": "second", "deep": 5}}, "rerank.deep", ""),
        ({"query": "red", "rerank": "second"}, "rerank", ""),
    ],
    ids=["image", "away", "unknown", "headless", "zero", "deep", "words", "nameless", "stray", "string"],
)
@pytest.mark.parametrize("path", ["/v1/search", "/v1/compare"])
async def test_what_cannot_be_reranked_is_refused(
    shop: Shop, path: str, body: dict[str, Any], param: str, words: str
) -> None:
    shop.encoders["first"].has_head = False
    answer = await shop.client.post(path, json=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]["param"] == param
    assert words in answer.json()["error"]["message"]


async def test_a_model_without_a_head_is_refused_where_nothing_is_found(shop: Shop) -> None:
    shop.encoders["first"].has_head = False
    body = {"query": "red", "filter": {"color": "none"}, "rerank": {"model": "first"}}
    answer = await shop.client.post("/v1/search", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "rerank.model")


async def test_a_model_that_is_away_leaves_the_first_order_and_says_so(shop: Shop) -> None:
    shop.encoders["second"].away = True
    answer = await shop.search(query="red", model="first", rerank=RERANK)
    assert ids(answer) == ["glare", "fire", "blue", "lime", "white"]
    assert answer["degraded"] is True
    assert answer["rerank"]["skipped"] == {"second is not available": 3}
    assert answer["rerank"]["fingerprint"] is None


async def test_what_is_not_scored_in_time_keeps_its_place(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = shop.encoders["second"]
    await shop.search(query="red", model="first", rerank={"model": "second", "depth": 2})
    match = encoder.match

    async def late(text: str, images: Sequence[NamedFile]) -> Matched:
        if any(data is not None for _, data in images):
            raise DeadlineExceeded("second did not answer within 5 s")
        return await match(text, images)

    monkeypatch.setattr(encoder, "match", late)
    answer = await shop.search(query="red", model="first", rerank={"model": "second", "depth": 5})
    assert ids(answer) == ["fire", "glare", "blue", "lime", "white"]
    assert answer["rerank"]["reranked"] == 2
    assert answer["rerank"]["skipped"] == {"second did not answer within 5 s": 3}
    assert answer["degraded"] is True


async def test_the_requests_own_deadline_bounds_the_second_stage(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(text: str, images: Sequence[NamedFile]) -> Matched:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(shop.encoders["second"], "match", hang)
    body = {"query": "red", "model": "first", "rerank": RERANK}
    answer = await shop.client.post("/v1/search", json=body, headers={"X-Request-Timeout-Seconds": "2"})
    assert answer.status_code == 200, answer.text
    assert ids(answer.json()) == ["glare", "fire", "blue", "lime", "white"]
    assert answer.json()["rerank"]["skipped"] == {"not in time": 3}


async def test_a_search_without_a_second_stage_does_not_ask_for_the_head(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(text: str, images: Sequence[NamedFile]) -> Matched:
        raise AssertionError("nobody asked for it")

    for encoder in shop.encoders.values():
        monkeypatch.setattr(encoder, "match", never)
    answer = await shop.search(query="red")
    assert "rerank" not in answer["timings_ms"]


async def test_models_say_whether_they_can_rerank(shop: Shop) -> None:
    shop.encoders["first"].has_head = False
    models = (await shop.client.get("/v1/models")).json()
    assert {each["model"]: each["reranks"] for each in models} == {"first": False, "second": True}
    shop.encoders["second"].away = True
    models = (await shop.client.get("/v1/models")).json()
    assert {each["model"]: each["reranks"] for each in models} == {"first": False, "second": None}
