"""Words over HTTP: beside vectors, instead of them, and while every encoder is away."""

import base64
import io
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from core.errors import UnsupportedModality
from core.types import Encoded, EncoderInfo, EncoderInput
from tests.support.local_encoder import LocalEncoder
from tests.support.local_service import local_service

pytestmark = pytest.mark.anyio


class Encoder(LocalEncoder):
    """One that can also be without a tower for words."""

    blind_to_words = False

    async def describe(self) -> EncoderInfo:
        info = await super().describe()
        return replace(info, modalities=("image",)) if self.blind_to_words else info

    async def encode(self, inputs: Sequence[EncoderInput]) -> Encoded:
        encoded = await super().encode(inputs)
        if not self.blind_to_words:
            return encoded
        refusal = UnsupportedModality(f"model {self.name!r} cannot encode words")
        answers = zip(inputs, encoded.vectors, strict=True)
        return replace(encoded, vectors=[refusal if isinstance(i, str) else vector for i, vector in answers])


@dataclass
class Shop:
    client: httpx.AsyncClient
    encoders: dict[str, Encoder]

    async def put(self, product_id: str, color: str, **body: Any) -> None:
        answer = await self.client.put(f"/v1/products/{product_id}", json={"images": [drawn(color)], **body})
        assert answer.status_code in (200, 201), answer.text

    async def search(self, **body: Any) -> dict[str, Any]:
        answer = await self.client.post("/v1/search", json=body)
        assert answer.status_code == 200, answer.text
        content: dict[str, Any] = answer.json()
        return content


def drawn(color: str) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), color).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def ids(answer: dict[str, Any]) -> list[str]:
    return [result["product_id"] for result in answer["results"]]


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    encoders = {name: Encoder(name) for name in ("first", "second")}
    with local_service(tmp_path, encoders) as app:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            shop = Shop(client, encoders)
            for color in ("red", "lime", "blue"):
                await shop.put(f"{color}-1", color, title=f"Plain {color} shirt", attributes={"price": 5})
            await shop.put(
                "odd", "white", title="Kimono", description="Cut by hand.", attributes={"price": 50}
            )
            yield shop


async def test_words_to_the_ensemble_find_what_is_written(shop: Shop) -> None:
    answer = await shop.search(query="kimono")
    assert ids(answer)[0] == "odd"
    assert (answer["keyword_weight"], answer["degraded"]) == (0.5, False)
    assert [used["model"] for used in answer["models_used"]] == ["first", "second"]
    assert "keyword" in answer["timings_ms"]
    assert ids(await shop.search(query="lime-1"))[0] == "lime-1"


async def test_images_and_single_models_are_ranked_by_vectors_unless_asked(shop: Shop) -> None:
    image = {"type": "image", "image": drawn("red")}
    words = {"type": "text", "text": "kimono"}
    for body in ({"query": [image]}, {"query": [image, words]}, {"query": "kimono", "model": "first"}):
        answer = await shop.search(**body)
        assert answer["keyword_weight"] == 0
        assert "keyword" not in answer["timings_ms"]
    mixed = await shop.search(query=[image, words], model="first", keyword_weight=0.6)
    assert (ids(mixed)[0], mixed["keyword_weight"]) == ("odd", 0.6)
    vectors = await shop.search(query="red", keyword_weight=0)
    assert (ids(vectors)[0], vectors["keyword_weight"]) == ("red-1", 0)


async def test_words_alone_ask_no_model(shop: Shop) -> None:
    for encoder in shop.encoders.values():
        encoder.away = True
    for model in ("ensemble", "first"):
        answer = await shop.search(query="kimono shirt", model=model, keyword_weight=1)
        assert set(ids(answer)) == {"odd", "red-1", "lime-1", "blue-1"}
        assert (answer["keyword_weight"], answer["models_used"]) == (1, [])
        assert (answer["degraded"], answer["skipped"]) == (False, {})


async def test_words_are_answered_while_every_encoder_is_away(shop: Shop) -> None:
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


async def test_what_words_cannot_answer_is_still_refused(shop: Shop) -> None:
    for encoder in shop.encoders.values():
        encoder.away = True
    image = {"type": "image", "image": drawn("red")}
    words = {"type": "text", "text": "kimono"}
    for body in (
        {"query": [image]},
        {"query": [image, words], "keyword_weight": 0.5},
        {"query": "kimono", "keyword_weight": 0},
        {"query": "kimono", "model": "first"},
    ):
        answer = await shop.client.post("/v1/search", json=body)
        assert answer.status_code == 503, answer.text


async def test_words_are_answered_when_all_models_only_see_images(shop: Shop) -> None:
    for encoder in shop.encoders.values():
        encoder.blind_to_words = True
    answer = await shop.search(query="kimono")
    assert (ids(answer), answer["keyword_weight"], answer["degraded"]) == (["odd"], 1, False)
    assert "cannot encode words" in answer["skipped"]["ensemble"]
    refused = await shop.client.post("/v1/search", json={"query": "kimono", "model": "first"})
    assert refused.status_code == 422


async def test_changes_are_found_at_once(shop: Shop) -> None:
    await shop.put("odd", "white", title="Poncho")
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
        {"query": [{"type": "image", "image": drawn("red")}], "keyword_weight": 0.5},
        {"query": [{"type": "text", "text": "x", "weight": -1}], "keyword_weight": 1},
    ],
)
async def test_a_weight_without_meaning_is_refused(shop: Shop, body: dict[str, Any]) -> None:
    answer = await shop.client.post("/v1/search", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "keyword_weight"), answer.text


async def test_any_words_but_blank_ones_and_nul_are_answered(shop: Shop) -> None:
    texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=2000)
    hostile = st.text(st.sampled_from("\"'\\()*:^-+&|!<>{}[]@~ ANDORTNEAR\0%_;"), min_size=1, max_size=50)
    queries: list[str] = ["x" * 2000, '" OR 1=1 --', "NEAR(a, b)", "\0"]

    @settings(max_examples=60)
    @given(texts | hostile)
    def collect(words: str) -> None:
        queries.append(words)

    collect()
    for words in queries:
        answer = await shop.client.post(
            "/v1/search", content=json.dumps({"query": words, "keyword_weight": 1}).encode()
        )
        refused = "\0" in words or not words.strip()
        assert answer.status_code == (422 if refused else 200), answer.text
