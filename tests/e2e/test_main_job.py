"""The main job through every real component: products in over HTTP, out of a search."""

import json
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from demo.catalog import demo_products
from demo.service import DemoService
from tests.e2e.conftest import PRODUCTS, SEED

MODELS = ("openclip", "dinov2", "blip2")


def search(client: httpx.Client, body: dict[str, Any], image: bytes | None = None) -> dict[str, Any]:
    if image is None:
        answer = client.post("/v1/search", json=body)
    else:
        files = {"image": ("query.jpg", image, "image/jpeg")}
        answer = client.post("/v1/search", data={"request": json.dumps(body)}, files=files)
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json()
    return content


def test_every_model_holds_every_image(client: httpx.Client) -> None:
    # What models hold is as of a moment ago.
    for _ in range(240):
        stats = client.get("/v1/stats").json()
        held = [(counts["images"], counts["indexed"]) for counts in stats["models"].values()]
        if held == [(stats["images"], stats["images"])] * len(MODELS):
            break
        time.sleep(0.5)
    assert stats["products"] >= PRODUCTS
    assert set(stats["models"]) == set(MODELS)
    assert held == [(stats["images"], stats["images"])] * len(MODELS)


def test_models_are_the_trained_ones_in_their_formats(client: httpx.Client) -> None:
    serving = {model["model"]: model["serving"] for model in client.get("/v1/models").json()}
    assert {name: version["modalities"] for name, version in serving.items()} == {
        "openclip": ["image", "text"],
        "dinov2": ["image"],
        "blip2": ["image", "text"],
    }
    assert serving["blip2"]["precision"] == "int8"
    assert all(version["live"] for version in serving.values())


@pytest.mark.parametrize("model", [*MODELS, "ensemble"])
def test_an_image_finds_its_product_first(client: httpx.Client, model: str) -> None:
    for product in list(demo_products(SEED, PRODUCTS))[::20]:
        for image in product.images:
            found = search(client, {"model": model, "limit": 3}, image)
            assert found["results"][0]["product_id"] == product.product_id


@pytest.mark.parametrize("model", ["openclip", "blip2", "ensemble"])
def test_words_find_garments_of_that_color_and_type(client: httpx.Client, model: str) -> None:
    product = next(iter(demo_products(SEED, PRODUCTS)))
    wanted = {key: product.attributes[key] for key in ("type", "color")}
    found = search(client, {"query": f"a {wanted['color']} {wanted['type']}", "model": model, "limit": 1})
    shown = found["results"][0]["product"]["attributes"]
    assert {key: shown[key] for key in wanted} == wanted


def test_the_matching_head_reranks_what_another_model_finds(client: httpx.Client) -> None:
    product = next(iter(demo_products(SEED, PRODUCTS)))
    wanted = {key: product.attributes[key] for key in ("type", "color")}
    body = {"query": f"a {wanted['color']} {wanted['type']}", "model": "openclip", "limit": 10}
    first = search(client, {**body, "rerank": {"model": "blip2", "depth": 20}})
    assert (first["rerank"]["reranked"], first["rerank"]["skipped"]) == (20, {})
    scores = [hit["rerank_score"] for hit in first["results"]]
    assert scores == sorted(scores, reverse=True)
    shown = first["results"][0]["product"]["attributes"]
    assert {key: shown[key] for key in wanted} == wanted
    # Another replica may answer, or one that has seen the images before.
    again = search(client, {**body, "rerank": {"model": "blip2", "depth": 20}})
    assert [hit["rerank_score"] for hit in again["results"]] == pytest.approx(scores, abs=0.05)


def test_an_image_and_a_text_together_move_the_result(client: httpx.Client) -> None:
    product = next(iter(demo_products(SEED, PRODUCTS)))
    part = {"type": "text", "text": "a photo of a hat"}
    found = search(client, {"query": [part | {"weight": 3}], "model": "openclip"}, product.images[0])
    assert found["results"][0]["product"]["attributes"]["type"] == "hat"


def test_no_replica_without_a_model_has_torch_in_memory(service: DemoService) -> None:
    with_torch = {
        name for process in service.processes("ray::") for name in _role(process) if _has_torch(process)
    }
    assert with_torch == set(MODELS)


def _role(process: psutil.Process) -> list[str]:
    title = " ".join(process.cmdline())
    return [title.split(":")[3]] if "ServeReplica" in title else []


def _has_torch(process: psutil.Process) -> bool:
    return "libtorch" in Path(f"/proc/{process.pid}/maps").read_text()
