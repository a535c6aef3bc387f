"""The same objects drawn by two makers: the images of the one find those of the other.

Noto's images are imported as a table, indexed with the real weights of EfficientNet-Lite0, and found by Twemoji's
through the HTTP API of `vitrine try`.
"""

import csv
import json
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.corpora import npm
from tests.support.try_command import TryCommand, trying

pytestmark = pytest.mark.skipif(
    "VITRINE_TEST_DATA" not in os.environ,
    reason="set VITRINE_TEST_DATA to a folder for 140 MB of images; it takes some minutes",
)
VERSION = "16.0.0"
MAKERS = ("google", "twitter")
QUERIES = 400
AT_ONCE = 4


@pytest.fixture(scope="module")
def packages() -> dict[str, Path]:
    return {
        maker: npm(f"emoji-datasource-{maker}", VERSION, ["emoji.json", f"img/{maker}/64/", "LICENSE"])
        for maker in MAKERS
    }


@pytest.fixture(scope="module")
def objects(packages: dict[str, Path]) -> list[dict[str, Any]]:
    listed = json.loads((packages["google"] / "emoji.json").read_text())
    return [each for each in listed if all(each[f"has_img_{maker}"] for maker in MAKERS)]


@pytest.fixture(scope="module")
def command(packages: dict[str, Path], objects: list[dict[str, Any]]) -> Iterator[TryCommand]:
    with tempfile.TemporaryDirectory(prefix="vitrine-") as name:
        table = Path(name) / "emoji.csv"
        shutil.copytree(packages["google"] / "img/google/64", Path(name) / "images")
        with table.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("product_id", "title", "attributes", "image"))
            for each in objects:
                category = json.dumps({"category": each["category"]})
                writer.writerow((each["unified"], each["name"], category, f"images/{each['image']}"))
        with trying(table, Path(name) / "data") as running:
            yield running


def test_an_object_drawn_by_another_maker_is_found(
    packages: dict[str, Path], objects: list[dict[str, Any]], command: TryCommand
) -> None:
    asked = random.Random(7).sample(objects, QUERIES)
    with httpx.Client(base_url=command.base_url, timeout=60) as client:

        def rank(each: dict[str, Any]) -> int:
            image = (packages["twitter"] / "img/twitter/64" / each["image"]).read_bytes()
            answer = client.post("/v1/search", files={"image": image}, data={"request": '{"limit": 10}'})
            assert answer.status_code == 200, answer.text
            found = [hit["product_id"] for hit in answer.json()["results"]]
            assert len(found) == 10
            return found.index(each["unified"]) if each["unified"] in found else len(found)

        with ThreadPoolExecutor(AT_ONCE) as threads:
            ranks = list(threads.map(rank, asked))
    first, among_ten = sum(each == 0 for each in ranks) / QUERIES, sum(each < 10 for each in ranks) / QUERIES
    print(f"Noto by Twemoji, {QUERIES} of {len(objects)}: recall@1 {first:.3f}, recall@10 {among_ten:.3f}")
    assert among_ten >= 0.90
    assert first >= 0.60


def test_a_filter_by_category_and_a_name_hold(command: TryCommand, objects: list[dict[str, Any]]) -> None:
    with httpx.Client(base_url=command.base_url, timeout=60) as client:
        query = {"query": "banana", "filter": {"category": "Food & Drink"}, "limit": 5}
        (banana,) = client.post("/v1/search", json=query).json()["results"]
        assert banana["product"]["title"] == "Banana"
        assert client.get("/v1/stats").json()["products"] == len(objects)
