"""The same objects drawn by three makers, through the whole product: import, build, evaluation and searches.

The drawings of two makers are indexed, and those of the third ask. Each drawing is a product of its own, so that a
filter chooses the maker whose drawings are searched.
"""

import csv
import json
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.tcp_ports import free_port
from demo.service import DemoService, write_configuration
from tests.support.children import shown_on_failure
from tests.support.corpora import fluent_emoji, google_emoji, twitter_emoji
from tests.support.real_images import ALL, MODEL, at_once, encoder_args, rank, recall
from vitrine import ImagePart, Vitrine
from vitrine.query import ProductImagePart

QUERIES = 2000 if ALL else 300
"""At most so many of the 1,911 objects are asked for, in each direction."""
WITHIN_S = 600


@pytest.fixture(scope="module")
def objects() -> list[dict[str, Any]]:
    """List what is drawn by both makers of the two packages, with its name and category."""
    listed: list[dict[str, Any]] = json.loads((google_emoji() / "emoji.json").read_text())
    twitter_emoji()
    fluent_emoji()
    return [each for each in listed if each["has_img_google"] and each["has_img_twitter"]]


Drawing = Callable[[Mapping[str, Any]], Path]
MAKERS: dict[str, Drawing] = {
    "noto": lambda each: google_emoji() / "img/google/64" / each["image"],
    "twemoji": lambda each: twitter_emoji() / "img/twitter/64" / each["image"],
    "fluent": lambda each: fluent_emoji() / f"assets/{each['unified'].lower()}.webp",
}


def product_id(maker: str, each: Mapping[str, Any]) -> str:
    return f"{maker}-{each['unified']}"


class Service:
    """The running service, with the folder that its imports and evaluations read."""

    def __init__(self, shop: Vitrine, folder: Path) -> None:
        self.shop = shop
        self.folder = folder

    def job(self, kind: str, **args: Any) -> Mapping[str, Any]:
        job = self.shop.jobs.wait(self.shop.jobs.submit(kind, **args).job_id, WITHIN_S)
        assert job.state == "succeeded", (job.error, self.shop.jobs.logs(job.job_id))
        assert job.result is not None
        return job.result

    def index(self, makers: Sequence[str], objects: Sequence[Mapping[str, Any]]) -> None:
        """Import the drawings of these makers as a table, and build."""
        drawn = [(maker, each) for maker in makers for each in objects if MAKERS[maker](each).exists()]
        table = self.folder / f"{'-'.join(makers)}.csv"
        with table.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("product_id", "title", "attributes", "image"))
            for maker, each in drawn:
                image = MAKERS[maker](each)
                place = self.folder / maker / image.name
                place.parent.mkdir(exist_ok=True)
                shutil.copy(image, place)
                attributes = json.dumps({"maker": maker, "category": each["category"]})
                writer.writerow((product_id(maker, each), each["name"], attributes, f"{maker}/{image.name}"))
        imported = self.job("import", source={"kind": "manifest", "path": str(table)})
        assert (imported["created"], imported["failed"]) == (len(drawn), 0)
        built = self.job("build", model=MODEL)
        assert (built["indexed"], built["remaining"]) == (len(drawn), 0)


@pytest.fixture(scope="module")
def service(objects: list[dict[str, Any]]) -> Iterator[Service]:
    # A short path: the address of Milvus Lite is a unix socket in this folder.
    with tempfile.TemporaryDirectory(prefix="vitrine-") as name:
        folder = Path(name) / "deliveries"
        folder.mkdir()
        config = Path(name) / "serve_config.yaml"
        write_configuration(config, encoder_args(), Path(name))
        content = yaml.safe_load(config.read_text())
        applications = {each["name"]: each["args"] for each in content["applications"]}
        applications["gateway"]["jobs"] = {"imports": {"folders": [str(folder)]}}
        # The builds index, not the repair.
        applications["repair"] |= {"interval_s": 3600.0}
        config.write_text(yaml.safe_dump(content))
        with DemoService(Path(name), free_port(), config) as running, shown_on_failure(running.log_file):
            running.wait_until_ready(WITHIN_S)
            with Vitrine(running.base_url, key="") as shop:
                yield Service(shop, folder)


@pytest.fixture(scope="module")
def two_makers(service: Service, objects: list[dict[str, Any]]) -> Service:
    service.index(("noto", "twemoji"), objects)
    return service


def drawn_by_all(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    drawn = [each for each in objects if MAKERS["fluent"](each).exists()]
    return random.Random(7).sample(drawn, min(QUERIES, len(drawn)))


def test_an_evaluation_asks_with_the_third_maker(two_makers: Service, objects: list[dict[str, Any]]) -> None:
    folder = two_makers.folder / "queries"
    folder.mkdir()
    table = folder / "labels.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("query_id", "image", "product_id"))
        for each in drawn_by_all(objects):
            image = MAKERS["fluent"](each)
            shutil.copy(image, folder)
            for maker in ("noto", "twemoji"):
                writer.writerow((each["unified"], image.name, product_id(maker, each)))
    result = two_makers.job("evaluate", model=MODEL, queries=str(table))
    print(json.dumps(result, indent=1))


def test_a_drawing_finds_that_of_another_maker(two_makers: Service, objects: list[dict[str, Any]]) -> None:
    def found(each: dict[str, Any]) -> int | None:
        query = [ImagePart(MAKERS["noto"](each))]
        answer = two_makers.shop.search(query, filter={"maker": "twemoji"}, limit=10)
        assert len(answer.results) == 10
        assert {hit.product.attributes["maker"] for hit in answer.results} == {"twemoji"}
        return rank(answer, product_id("twemoji", each))

    asked = random.Random(7).sample(objects, min(QUERIES, len(objects)))
    ranks = at_once(found, asked)
    print(f"Noto → Twemoji, {len(asked)} of {len(objects)} ask: {figures(ranks)}")
    assert recall(ranks, 10) >= 0.90
    assert recall(ranks, 1) >= 0.65


def figures(ranks: list[int | None]) -> str:
    return f"recall@1 {recall(ranks, 1):.3f}, recall@10 {recall(ranks, 10):.3f}"


def test_filters_by_category_and_names_hold(two_makers: Service, objects: list[dict[str, Any]]) -> None:
    food = {"category": "Food & Drink", "maker": "noto"}
    answer = two_makers.shop.search("banana", filter=food, limit=5)
    assert [hit.product.title for hit in answer.results] == ["BANANA"]
    (banana,) = [each for each in objects if each["name"] == "BANANA"]
    page = two_makers.shop.search([ImagePart(MAKERS["fluent"](banana))], filter=food, limit=200)
    assert len(page.results) == sum(each["category"] == "Food & Drink" for each in objects)
    assert {hit.product.attributes["category"] for hit in page.results} == {"Food & Drink"}


def test_stored_drawings_find_each_other(two_makers: Service, objects: list[dict[str, Any]]) -> None:
    makers = ["noto", "twemoji"]
    if ALL:
        two_makers.index(["fluent"], objects)
        makers.append("fluent")
    images = {product.product_id: product.images[0].image_id for product in two_makers.shop.products(1000)}
    for asking, asked in permutations(makers, 2):

        def found(each: dict[str, Any], asking: str = asking, asked: str = asked) -> int | None:
            query = [ProductImagePart(images[product_id(asking, each)])]
            answer = two_makers.shop.search(query, filter={"maker": asked}, limit=10)
            return rank(answer, product_id(asked, each))

        ranks = at_once(found, drawn_by_all(objects))
        print(f"{asking} → {asked}, {len(ranks)} ask: {figures(ranks)}")
        assert recall(ranks, 10) >= 0.6
