"""The demo's trained models on the demo's labeled queries: the figures make sense."""

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from catalog.products import PutProduct
from core.config import EvaluationConfig
from core.jobs import EnsembleArgs
from core.types import NewImage
from demo.catalog import IMAGE_SIZE, demo_products
from demo.labels import FULL_GRADE, TABLE, image_queries, write_labels
from demo.service import CONFIG
from models.config import EncoderConfig, Family
from tests.support.evaluation_bench import Bench, bench

WEIGHTS = Path(__file__).parents[3] / "demo" / "weights"
SEED, PRODUCTS, IMAGES = 7, 100, 60
FAMILIES: tuple[Family, ...] = ("openclip", "dinov2", "blip2")


def configured_ensemble() -> EnsembleArgs:
    """The demo's, as it serves."""
    applications = yaml.safe_load(CONFIG.read_text())["applications"]
    (found,) = [each for each in applications if each["name"] == "ensemble"]
    return EnsembleArgs.model_validate(found["deployments"][0]["user_config"])


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, lite_uri: str) -> Iterator[Bench]:
    encoders = [
        EncoderConfig(name=family, family=family, checkpoint=str(WEIGHTS / family), threads=2)
        for family in FAMILIES
    ]
    config = EvaluationConfig(resamples=200, relevant_from=FULL_GRADE)
    folder = tmp_path_factory.mktemp("demo")
    found = bench(folder, lite_uri, encoders, config, configured_ensemble())
    puts = []
    for product in demo_products(SEED, PRODUCTS):
        images = [NewImage(data, "image/jpeg", IMAGE_SIZE, IMAGE_SIZE) for data in product.images]
        puts.append(PutProduct(product.product_id, "", "", {}, images))
    found.catalog.products.write(puts)
    for each in found.settings.encoders.values():
        found.index(each)
    yield found
    found.close()


def test_exported_labels_say_what_the_demos_queries_say(tmp_path: Path) -> None:
    count = write_labels(tmp_path, SEED, PRODUCTS, IMAGES)
    with (tmp_path / TABLE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["query_id"] for row in rows}) == count
    last = image_queries(SEED, PRODUCTS, IMAGES)[-1]
    exported = {
        row["product_id"]: int(row["grade"]) for row in rows if row["query_id"] == rows[-1]["query_id"]
    }
    assert exported == last.grades
    assert (tmp_path / rows[-1]["image"]).read_bytes() == last.image


def test_trained_models_find_garments_and_their_ensemble_orders_them_better_than_the_best(
    shop: Bench, tmp_path: Path
) -> None:
    write_labels(tmp_path, SEED, PRODUCTS, IMAGES)
    result = shop.evaluate(queries=str(tmp_path / TABLE))
    words, images = (figures.estimates for figures in result.figures)
    assert set(words) == {"openclip", "blip2", "ensemble"}
    assert set(images) == {*FAMILIES, "ensemble"}
    assert words["openclip"]["mrr"].mean > 0.9
    assert words["ensemble"]["ndcg@10"].mean >= words["openclip"]["ndcg@10"].mean
    best = max(images[family]["ndcg@10"].mean for family in FAMILIES)
    assert images["ensemble"]["ndcg@10"].mean > best
    for name in images:
        assert images[name]["mrr"].mean > 0.8
        assert images[name]["recall@10"].mean > 0.9
        # A hundred products hold each pair of garment and color once, so one of ten can be right.
        assert images[name]["precision@10"].mean == pytest.approx(images[name]["recall@10"].mean / 10)
