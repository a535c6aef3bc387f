"""Large bodies are read apart from the event loop, by every call that takes images as base64."""

import asyncio
import base64
import tempfile
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pybase64
import pytest
from PIL import Image

from catalog.fetching import texts
from core.errors import InvalidInput
from deployments.http import requests
from deployments.http.requests import decode_base64
from models.config import CaptionConfig
from tests.support.image_files import file
from tests.support.local_encoder import LocalEncoder

NOISE = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
LARGE = base64.b64encode(file(Image.fromarray(NOISE))).decode()
SMALL = base64.b64encode(file(Image.new("RGB", (8, 8)))).decode()
URI = f"data:image/png;base64,{LARGE}"
CALLS: list[tuple[str, str, dict[str, Any]]] = [
    ("PUT", "/v1/products/p", {"images": [LARGE, URI]}),
    (
        "POST",
        "/v1/products:batch",
        {"operations": [{"op": "put", "product_id": "p", "images": [LARGE, URI]}]},
    ),
    ("POST", "/v1/search", {"query": [{"type": "image", "image": LARGE}], "model": "fake"}),
    ("POST", "/v1/compare", {"query": [{"type": "image", "image": LARGE}]}),
    ("POST", "/v1/embed/fake", {"image": LARGE}),
    ("POST", "/v1/embeddings", {"input": [URI], "model": "fake"}),
    ("POST", "/v1/caption", {"image": LARGE}),
    ("POST", "/vectorize", {"images": [LARGE]}),
]


@pytest.fixture
def encoders() -> dict[str, LocalEncoder]:
    return {"fake": LocalEncoder(captions=CaptionConfig())}


def noted(function: Callable[..., Any], threads: list[str]) -> Callable[..., Any]:
    def note(*args: Any, **options: Any) -> Any:
        threads.append(threading.current_thread().name)
        return function(*args, **options)

    return note


@pytest.mark.anyio
@pytest.mark.parametrize(("method", "path", "body"), CALLS)
async def test_json_and_base64_are_read_in_the_threads_for_bodies(
    method: str, path: str, body: dict[str, Any], client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []
    assert (await client.put("/v1/products/small", json={"images": [SMALL]})).is_success
    monkeypatch.setattr(requests, "parse", noted(requests.parse, threads))
    monkeypatch.setattr(pybase64, "b64decode", noted(pybase64.b64decode, threads))
    answer = await client.request(method, path, json=body)
    assert answer.is_success, answer.text
    assert len(threads) >= 2
    assert {name.split("_")[0] for name in threads} == {"bodies"}


@pytest.mark.anyio
async def test_a_small_body_is_parsed_at_once(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []
    monkeypatch.setattr(requests, "parse", noted(requests.parse, threads))
    assert (await client.put("/v1/products/p", json={"images": [SMALL]})).is_success
    assert threads == [threading.current_thread().name]


@pytest.mark.anyio
async def test_a_photo_in_a_form_stays_in_memory(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_file: object) -> None:
        raise AssertionError("the file went to disk")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", refuse)
    noise = np.random.default_rng(1).integers(0, 256, (1000, 1000, 3), dtype=np.uint8)
    photo = file(Image.fromarray(noise))
    assert len(photo) > 2 * 2**20
    answer = await client.post("/v1/embed/fake", files={"image": ("photo.png", photo)})
    assert answer.is_success, answer.text


@pytest.mark.parametrize("size", [0, 1, 2, 3, 786_431, 786_432, 786_433, 2_000_000])
@pytest.mark.parametrize("head", ["", "data:image/png;base64,", "DATA:;BASE64,"])
def test_base64_of_any_length_comes_back(size: int, head: str) -> None:
    data = np.random.default_rng(size).bytes(size)
    encoded = base64.b64encode(data).decode()
    for written in (
        encoded,
        encoded.rstrip("="),
        base64.urlsafe_b64encode(data).decode(),
        base64.urlsafe_b64encode(data).decode().rstrip("="),
        base64.encodebytes(data).decode(),
        f" {encoded[:5]}\r\n\t{encoded[5:]} \n",
    ):
        assert asyncio.run(decode_base64(head + written, "image")) == data
    if head:
        assert asyncio.run(decode_base64(head + quote(encoded, safe=""), "image")) == data


@pytest.mark.parametrize("escape", ["%2B", "%2f", "%41"])
def test_a_data_uri_of_nothing_but_escapes_takes_little_memory(escape: str) -> None:
    uri = "data:;base64," + escape * 400_000
    tracemalloc.start()
    decoded = asyncio.run(decode_base64(uri, "image"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(decoded) == 300_000
    assert peak < 4 * len(uri)


@pytest.mark.parametrize("broken", ["=" * 4, "*", "A===", "AA==", "%3D", "é"])
def test_what_is_no_base64_is_refused_wherever_it_stands(broken: str) -> None:
    first = "A" * (texts._PIECE_BYTES - len(broken))
    for encoded in (first + broken + "AAAA", "AAAA" + broken + "AAAA"):
        with pytest.raises(InvalidInput):
            asyncio.run(decode_base64(encoded, "image"))
