"""Embeddings for other people's clients: OpenAI's, Infinity's and Weaviate's."""

import base64
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from fastapi import FastAPI
from openai import OpenAI

from core import concurrency
from core.errors import ModelUnavailable
from core.types import Encoded, EncoderInput
from deployments.services.encoders import Embedder, EncoderSet
from models.fake import FakeEncoder
from tests.support.image_files import b64, png
from tests.support.local_encoder import LocalEncoder
from tests.support.local_service import open_fetching, served
from tests.support.servers import HostileServer, hostile_server
from vitrine.schemas.embeddings import EmbeddingsRequest

pytestmark = pytest.mark.anyio


def uri(data: bytes) -> str:
    return f"data:image/png;base64,{b64(data)}"


class ImageOnlyEncoder(LocalEncoder):
    async def describe(self) -> Any:
        return replace(await super().describe(), modalities=("image",))


@pytest.fixture
def encoders() -> dict[str, LocalEncoder]:
    return {"looks": ImageOnlyEncoder("looks"), "both": LocalEncoder("both")}


@pytest.fixture
async def server() -> AsyncIterator[HostileServer]:
    async with hostile_server() as running:
        yield running


@pytest.fixture
def official(app: FastAPI) -> Iterator[OpenAI]:
    """OpenAI's client over real HTTP, given only the address of the service."""
    with served(app) as url, OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as opened:
        yield opened


async def direct(encoder: LocalEncoder, item: EncoderInput) -> list[float]:
    (vector,) = (await encoder.encode([item])).vectors
    assert isinstance(vector, np.ndarray)
    return [float(value) for value in vector]


async def error_of(client: httpx.AsyncClient, status: int, **body: Any) -> dict[str, Any]:
    answer = await client.post("/v1/embeddings", json={"model": "both", "fail": "together", **body})
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert {"type", "message", "param"} <= set(error)
    return error


async def test_the_official_client_embeds_texts_and_images_mixed(
    official: OpenAI, encoders: dict[str, LocalEncoder]
) -> None:
    # By default the client asks for base64 and decodes it.
    answer = official.embeddings.create(model="both", input=["a red thing", uri(png("red")), "blue"])
    assert [item.index for item in answer.data] == [0, 1, 2]
    expected = [await direct(encoders["both"], item) for item in ("a red thing", png("red"), "blue")]
    for item, vector in zip(answer.data, expected, strict=True):
        assert item.embedding == pytest.approx(vector, abs=1e-7)
    assert (answer.object, answer.model) == ("list", "both")
    # The fake encoder's tokens are words; the image has none.
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (4, 4)


async def test_the_official_client_reads_both_encodings_alike(official: OpenAI) -> None:
    plain = official.embeddings.create(model="both", input="blue", encoding_format="float", user="someone")
    packed = official.embeddings.create(model="both", input="blue", encoding_format="base64")
    raw = packed.data[0].embedding
    assert isinstance(raw, str)
    assert np.frombuffer(base64.b64decode(raw), "<f4").tolist() == pytest.approx(plain.data[0].embedding)


async def test_the_official_client_reads_our_errors(official: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        official.embeddings.create(model="text-embedding-3-small", input="blue")
    assert unknown.value.param == "model"
    assert "both" in unknown.value.message
    with pytest.raises(openai.UnprocessableEntityError) as broken:
        official.embeddings.create(model="both", input=[uri(b"no image")])
    assert broken.value.param == "input[0]"
    assert broken.value.type == "invalid_image"


async def test_inputs_of_the_official_client_fail_alone(official: OpenAI) -> None:
    answer = official.embeddings.create(model="both", input=["blue", uri(b"no image")])
    assert len(answer.data[0].embedding) > 1
    assert answer.data[1].embedding is None
    assert answer.data[1].model_extra is not None
    assert answer.data[1].model_extra["error"]["type"] == "invalid_image"


async def test_of_64_images_each_fails_alone(client: httpx.AsyncClient) -> None:
    images = [uri(png("red"))] * 64
    images[7], images[40] = uri(png("red")[:50]), "data:image/png;base64,%%%"
    body = {"model": "both", "input": images}
    data = (await client.post("/v1/embeddings", json=body)).json()["data"]
    assert [item["index"] for item in data] == list(range(64))
    assert {item["index"] for item in data if item["embedding"] is None} == {7, 40}
    assert all(set(item) == {"object", "index", "embedding"} for item in data if item["embedding"])
    assert data[40]["error"]["param"] == "input[40]"
    error = await error_of(client, 422, input=images)
    assert error["param"] == "input[7]"
    assert "2 of 64 inputs failed" in error["message"]


async def test_modality_decides_what_a_string_is(
    client: httpx.AsyncClient, app: FastAPI, server: HostileServer, encoders: dict[str, LocalEncoder]
) -> None:
    open_fetching(app, server)
    url = server.answer("/red.png", png("red"))
    image, text = await direct(encoders["both"], png("red")), await direct(encoders["both"], url)
    for body, expected in (
        ({"input": uri(png("red"))}, image),
        ({"input": uri(png("red")).replace("data:image/png;base64", "DATA:image/PNG;Base64")}, image),
        ({"input": [url, uri(png("red")), b64(png("red"))], "modality": "image"}, image),
        ({"input": url}, text),
        ({"input": url, "modality": "text"}, text),
    ):
        answer = await client.post("/v1/embeddings", json={"model": "both", **body})
        for item in answer.json()["data"]:
            assert item["embedding"] == pytest.approx(expected, abs=1e-6)
    assert server.connections == 1


async def test_urls_fail_alone_too(client: httpx.AsyncClient, app: FastAPI, server: HostileServer) -> None:
    open_fetching(app, server)
    urls = [
        server.answer("/a.png", png("red")),
        server.answer("/html", b"<html>no image</html>", Content_Type="image/png"),
        server.answer("/gone", status="404 Not Found"),
        server.answer("/down", status="503 Service Unavailable"),
        "http://169.254.169.254/",
    ]
    body = {"model": "looks", "input": urls, "modality": "image"}
    data = (await client.post("/v1/embeddings", json=body)).json()["data"]
    assert [item.get("error", {}).get("type") for item in data] == [
        None,
        "invalid_image",
        "unfetchable_url",
        "fetch_failed",
        "unfetchable_url",
    ]
    error = await error_of(client, 424, input=urls[3], modality="image")
    assert error["type"] == "fetch_failed"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": [1, 2, 3]}, "input"),
        ({"input": [[1, 2], [3]]}, "input"),
        ({"input": []}, "input"),
        ({"input": ["x"] * 2049}, "input"),
        ({"input": {"text": "x"}}, "input"),
        ({"input": ""}, "input[0]"),
        ({"input": ["x", ""]}, "input[1]"),
        ({"input": "x" * 32_001}, "input[0]"),
        ({"input": "x", "dimensions": 3}, "dimensions"),
        ({"input": "x", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "x", "modality": "audio"}, "modality"),
        ({"input": "x", "modality": "image"}, "input[0]"),
        ({"input": "x", "color": "red"}, "color"),
        ({"input": "x", "color": None}, "color"),
        ({"input": None}, "input"),
        ({}, "input"),
    ],
)
async def test_a_mistake_is_named(client: httpx.AsyncClient, body: dict[str, Any], param: str) -> None:
    assert (await error_of(client, 422, **body))["param"] == param


@pytest.mark.parametrize("text", ["\\ud800", "\\u0000", "data:;base64,", "data:image/png;base64,AA"])
async def test_a_hostile_string_is_no_failure_of_the_service(client: httpx.AsyncClient, text: str) -> None:
    for path, field in (("/v1/embeddings", "input"), ("/vectorize", "texts"), ("/vectorize", "images")):
        value = f'"{text}"' if field == "input" else f'["{text}"]'
        body = f'{{"{field}": {value}}}'
        assert (await client.post(path, content=body)).status_code in (200, 422)
    for modality in ("text", "image"):
        body = f'{{"input": "{text}", "modality": "{modality}"}}'
        assert (await client.post("/v1/embeddings", content=body)).status_code in (200, 422)


async def test_token_ids_are_refused_with_the_option_that_sends_texts(client: httpx.AsyncClient) -> None:
    error = await error_of(client, 422, input=[[2028, 374], [1234]])
    assert "check_embedding_ctx_length=False" in error["message"]


OPTIONAL = set(EmbeddingsRequest.model_fields) - {"input"}
DEFAULTS_OF_CLIENTS: dict[str, dict[str, Any]] = {
    "litellm": {"encoding_format": None},
    "null everywhere": dict.fromkeys(OPTIONAL),
    "infinity": {"model": "default/not-specified", "dimensions": 0, "modality": "text"},
    "haystack, vercel, spring": {"encoding_format": "float", "user": "shop"},
    "nvidia": {"input_type": "query", "truncate": "NONE"},
    "the model's own dimension": {"dimensions": 96},
    "cohere, text-embeddings-inference": {"input_type": "search_document", "truncate": True},
}


@pytest.mark.parametrize("sent", DEFAULTS_OF_CLIENTS.values(), ids=DEFAULTS_OF_CLIENTS)
async def test_what_clients_send_by_default_changes_nothing(
    client: httpx.AsyncClient, sent: dict[str, Any]
) -> None:
    answer = await client.post("/v1/embeddings", json={"input": "blue", **sent})
    plain = await client.post("/v1/embeddings", json={"input": "blue"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"] == plain.json()["data"]


async def test_a_text_beyond_the_context_is_cut_and_counted(client: httpx.AsyncClient) -> None:
    read = "blue " * FakeEncoder.context_length
    answer = await client.post("/v1/embeddings", json={"input": [read, read + "red " * 7000, "red dress"]})
    exact, cut, _ = (item["embedding"] for item in answer.json()["data"])
    assert exact == cut
    tokens = 2 * FakeEncoder.context_length + 2
    assert answer.json()["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens, "truncated_inputs": 1}


async def test_every_call_that_embeds_takes_long_texts(client: httpx.AsyncClient) -> None:
    for text, status in (("red " * 8000, 200), ("red " * 8000 + "x", 422)):
        assert (await client.post("/v1/embed/both", json={"text": text})).status_code == status
        assert (await client.post("/vectorize", json={"texts": [text]})).status_code == status


async def test_more_than_64_images_are_refused(client: httpx.AsyncClient) -> None:
    error = await error_of(client, 413, input=[uri(png("red"))] * 65)
    assert error["param"] == "input"


async def test_without_a_model_the_first_with_both_towers_answers(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/embeddings", json={"input": ["words", uri(png("red"))]})
    assert answer.json()["model"] == "both"
    error = await error_of(client, 422, input="words", model="looks")
    assert error["type"] == "unsupported_modality"


async def test_two_thousand_texts_come_back_in_order(
    client: httpx.AsyncClient, encoders: dict[str, LocalEncoder]
) -> None:
    calls: list[int] = []
    encode = encoders["both"].encode

    async def counted(inputs: Sequence[EncoderInput]) -> Encoded:
        calls.append(len(inputs))
        return await encode(inputs)

    encoders["both"].encode = counted  # type: ignore[method-assign]
    texts = [f"thing {number}" for number in range(2048)]
    data = (await client.post("/v1/embeddings", json={"model": "both", "input": texts})).json()["data"]
    assert calls == [concurrency.MAX_ENCODE_INPUTS] * 8
    assert data[1999]["embedding"] == pytest.approx(await direct(encoders["both"], texts[1999]), abs=1e-6)


async def test_one_answer_never_mixes_two_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = LocalEncoder("both"), LocalEncoder("both", "other")
    answers = [old, new, new, old]
    encoder = LocalEncoder("both")

    async def encode(inputs: Sequence[EncoderInput]) -> Encoded:
        return await answers.pop(0).encode(inputs)

    encoder.encode = encode  # type: ignore[method-assign]
    monkeypatch.setattr(concurrency, "MAX_ENCODE_INPUTS", 1)
    embedder = Embedder(EncoderSet(["both"], lambda _: encoder), None)
    encoded = await embedder.embed(encoder, ["red", "blue"])
    assert encoded.info == await old.describe()
    assert [list(vector) for vector in encoded.vectors] == [
        await direct(old, item) for item in ("red", "blue")
    ]
    answers[:] = [old, *[new] * 8]
    with pytest.raises(ModelUnavailable, match="being replaced"):
        await embedder.embed(encoder, ["red", "blue"])


async def test_vectorize_answers_as_weaviate_expects(
    client: httpx.AsyncClient, encoders: dict[str, LocalEncoder]
) -> None:
    body = {"texts": ["a plane", "blue"], "images": [b64(png("red"))]}
    answer = (await client.post("/vectorize", json=body)).json()
    assert set(answer) == {"textVectors", "imageVectors"}
    expected = [await direct(encoders["both"], item) for item in ("a plane", "blue", png("red"))]
    for vector, wanted in zip(answer["textVectors"] + answer["imageVectors"], expected, strict=True):
        assert vector == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("empty", [{"texts": None}, {"texts": []}, {}])
async def test_vectorize_takes_the_null_that_go_writes(client: httpx.AsyncClient, empty: Any) -> None:
    answer = await client.post("/vectorize", json={"images": [b64(png("red"))], **empty})
    assert answer.status_code == 200
    assert answer.json()["textVectors"] == []
    assert len(answer.json()["imageVectors"]) == 1
    assert (await client.post("/vectorize", json=empty)).json() == {"textVectors": [], "imageVectors": []}


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"images": ["%%%"]}, "images[0]: "),
        ({"texts": ["x"], "images": [b64(b"no image")]}, "images[0]: "),
        ({"texts": [1]}, "texts[0]: "),
        ({"videos": []}, "videos: "),
    ],
)
async def test_vectorize_says_its_errors_as_weaviate_reads_them(
    client: httpx.AsyncClient, body: Any, where: str
) -> None:
    answer = await client.post("/vectorize", json=body)
    assert answer.status_code == 422
    assert answer.json()["error"].startswith(where)


async def test_weaviate_finds_the_container_ready(
    client: httpx.AsyncClient, encoders: dict[str, LocalEncoder]
) -> None:
    assert (await client.get("/.well-known/live")).status_code == 204
    assert (await client.get("/.well-known/ready")).status_code == 204
    assert (await client.get("/meta")).json()["model"] == "both"
    encoders["both"].away = True
    assert (await client.get("/.well-known/live")).status_code == 204
    assert (await client.get("/.well-known/ready")).status_code == 503
    answer = await client.post("/vectorize", json={"texts": ["x"]})
    assert answer.status_code == 503
    assert "both" in answer.json()["error"]
