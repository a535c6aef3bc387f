"""Comparisons over a real Milvus Lite, with encoders that differ by what they see."""

import csv
import html
import io
import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from catalog.products import PutProduct
from core.config import EvaluationConfig, QualityGateConfig
from core.errors import Conflict, InvalidInput
from core.jobs import EnsembleArgs, EvaluateArgs
from core.types import NewImage
from jobs.evaluation.evaluate import evaluate_job
from jobs.evaluation.queries import changed_images
from jobs.evaluation.report import Thumbnails, most_different, store_files
from jobs.evaluation.result import EvaluationResult
from jobs.runner.context import JobContext, take_up
from models.config import EncoderConfig
from models.encoder import load_encoder
from tests.support.evaluation_bench import BLIND, Bench, bench

PRODUCTS = 80
SIGHTED = uuid.uuid4().hex
CONFIG = EvaluationConfig(
    sample=60,
    resamples=200,
    shown_queries=5,
    quality_gate=QualityGateConfig(metric="mrr", max_drop=0.02, min_queries=40),
)


def striped(number: int) -> bytes:
    """An image of a product's own three colors."""
    colors = np.random.default_rng(number).integers(0, 256, size=(3, 3), dtype=np.uint8)
    pixels = np.repeat(np.repeat(colors[:, None], 96, axis=1), 32, axis=0)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, lite_uri: str) -> Iterator[Bench]:
    encoders = [
        EncoderConfig(name="eyes", family="fake", checkpoint=SIGHTED),
        EncoderConfig(name="mole", family="fake", checkpoint=f"{BLIND}-{SIGHTED}"),
    ]
    ensemble = EnsembleArgs(name="both", weights={"eyes": 1.0, "mole": 1.0})
    found = bench(tmp_path_factory.mktemp("shop"), lite_uri, encoders, CONFIG, ensemble)
    images = [NewImage(striped(number), "image/png", 96, 96) for number in range(PRODUCTS)]
    puts = [PutProduct(f"<p>{number}", "", "", {}, [each]) for number, each in enumerate(images)]
    found.catalog.products.write(puts)
    for each in found.settings.encoders.values():
        found.index(each)
    found.index(found.settings.encoder("eyes", {"checkpoint": f"{BLIND}-candidate-{SIGHTED}"}))
    found.index(found.settings.encoder("eyes", {"checkpoint": f"equal-{SIGHTED}"}))
    yield found
    found.close()


def mean(result: EvaluationResult, system: str, metric: str = "mrr") -> float:
    return result.figures[0].estimates[system][metric].mean


def write_labels(folder: Path, rows: list[tuple[str, str, str, str, str]]) -> str:
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("query_id", "text", "image", "product_id", "grade"), *rows])
    return str(folder / "labels.csv")


def test_changed_images_find_their_product_by_eyes_and_not_by_noise(shop: Bench) -> None:
    result = shop.evaluate()
    assert len(result.queries) == 60
    assert result.pool is None
    assert mean(result, "eyes") > 0.6
    assert mean(result, "mole") < 0.2
    assert mean(result, "mole") < mean(result, "both") < mean(result, "eyes")
    (apart,) = [
        each
        for each in result.figures[0].differences
        if (each.first, each.second, each.metric) == ("mole", "eyes", "mrr")
    ]
    assert apart.estimate.mean == pytest.approx(mean(result, "mole") - mean(result, "eyes"), abs=1e-9)
    assert apart.estimate.high is not None
    assert apart.estimate.high < 0


def test_the_same_seed_gives_the_same_figures_and_another_asks_other_queries(shop: Bench) -> None:
    first, second = shop.evaluate(model="eyes"), shop.evaluate(model="eyes")
    assert first.full() == second.full()
    other = shop.evaluate(model="eyes", seed=5)
    assert {each.query_id for each in other.queries} != {each.query_id for each in first.queries}


def test_an_equal_candidate_passes_the_gate(shop: Bench) -> None:
    candidate = {"model": "eyes", "checkpoint": f"equal-{SIGHTED}"}
    result = shop.evaluate(**candidate)
    assert result.decision is not None
    assert result.decision.passed
    assert result.decision.difference is not None
    assert result.decision.difference.mean == 0
    assert result.versions["eyes"].collection != result.versions["eyes:candidate"].collection


def test_a_worse_candidate_is_refused_with_the_figures(shop: Bench) -> None:
    candidate = {"model": "eyes", "checkpoint": f"{BLIND}-candidate-{SIGHTED}"}
    result = shop.evaluate(compare=["mole"], **candidate)
    assert result.decision is not None
    assert not result.decision.passed
    assert result.decision.reason.startswith("refused: mrr goes from 0.")
    assert mean(result, "both:candidate") < mean(result, "both")


def test_a_candidate_that_was_never_built_is_a_conflict(shop: Bench) -> None:
    with pytest.raises(Conflict, match=r"no images in its collection eyes_.*build it first"):
        shop.evaluate(model="eyes", checkpoint="never built")


def test_a_sampled_candidate_is_compared_among_what_both_hold(shop: Bench) -> None:
    # The very same vectors, of fewer images: any difference would come from the smaller task.
    changes = {"checkpoint": f"sampled-{SIGHTED}"}
    collection = shop.index(shop.settings.encoder("eyes", changes), limit=50)
    indexed = shop.catalog.ledger.counts(collection).indexed
    result = shop.evaluate(model="eyes", **changes)
    assert result.pool == indexed == 50
    assert len(result.queries) == 50
    assert result.decision is not None
    assert result.decision.difference is not None
    assert (result.decision.difference.mean, result.decision.passed) == (0, True)


def test_labeled_queries_are_summed_up_by_kind(shop: Bench, tmp_path: Path) -> None:
    (tmp_path / "q.png").write_bytes(striped(7))
    (tmp_path / "broken.png").write_bytes(b"no image")
    labels = write_labels(
        tmp_path,
        [
            ("own", "", "q.png", "<p>7", "2"),
            ("own", "", "", "<p>8", "1"),
            ("broken", "", "broken.png", "<p>1", ""),
            ("texts", "red", "", "<p>3", ""),
            ("both", "blue", "q.png", "<p>7", ""),
            ("gone", "red", "", "sold out", ""),
        ],
    )
    result = shop.evaluate(model="eyes", queries=labels)
    assert {each.kind: each.queries for each in result.figures} == {
        "images": 2,
        "texts": 1,
        "texts and images": 1,
    }
    values = result.values["eyes"]
    assert values["precision@1"]["own"] == 1.0
    assert values["recall@1"]["own"] == 0.5
    assert "broken" not in values["mrr"]
    assert "1 of 5 labeled products are not in the catalog" in result.notes[0]
    assert "broken" in result.notes[1]


def test_a_made_up_ensemble_is_compared_and_a_stranger_in_it_refused(shop: Bench) -> None:
    ensemble = {"name": "mine", "weights": {"eyes": 1, "mole": 0}, "fusion": "weighted"}
    result = shop.evaluate(ensembles=[ensemble])
    assert mean(result, "mine") == pytest.approx(mean(result, "eyes"), abs=1e-9)
    with pytest.raises(InvalidInput, match="'nobody' of ensemble 'x' is not compared; there are: eyes, mole"):
        shop.evaluate(ensembles=[{"name": "x", "weights": {"nobody": 1}}])


def test_the_report_shows_where_models_differ_most_and_loads_nothing(shop: Bench) -> None:
    result = shop.evaluate()
    spreads = [spread for _, spread in most_different(result)]
    assert len(spreads) == CONFIG.shown_queries
    assert spreads == sorted(spreads, reverse=True)

    files = store_files(result, shop.catalog, shop.settings.images)["files"]
    page = shop.catalog.reports.get(files["report.html"]).decode()
    shown = [html.unescape(each) for each in re.findall(r"<h3>(?!Differences|Means)(.*?)</h3>", page)]
    assert shown == [query.text or query.query_id for query, _ in most_different(result)]
    assert page.count('alt="image of the query"') == CONFIG.shown_queries
    assert page.count('src="data:image/jpeg;base64,') >= CONFIG.shown_queries
    assert "<p>7" not in page
    assert "&lt;p&gt;" in page
    assert "http://" not in page
    assert "https://" not in page
    for each in ("eyes", "mole", "both"):
        assert each in page
    assert b'"values"' in shop.catalog.reports.get(files["evaluation.json"])


def test_images_beyond_the_configured_limits_are_neither_shown_nor_queries(shop: Bench) -> None:
    image = shop.catalog.products.page(1)[0].images[0]
    fitting = shop.settings.images
    tight = fitting.model_copy(update={"max_bytes": 1})
    assert Thumbnails(shop.catalog, fitting).of_image(image.image_id) is not None
    assert Thumbnails(shop.catalog, tight).of_image(image.image_id) is None
    assert len(changed_images(shop.catalog, fitting, 2, 1, 1)) == 2
    assert changed_images(shop.catalog, tight, 2, 1, 1) == []


@pytest.mark.parametrize(
    "queries", ["/etc/labels.csv", "http://10.0.0.1/labels.csv", "labels.csv", "{opened}/../labels.csv"]
)
def test_callers_of_the_api_name_queries_only_in_opened_folders(
    shop: Bench, tmp_path: Path, queries: str
) -> None:
    imports = shop.settings.imports.model_copy(update={"folders": (str(tmp_path / "opened"),)})
    (tmp_path / "opened").mkdir()
    settings = replace(shop.settings, imports=imports)
    args = EvaluateArgs(queries=queries.format(opened=tmp_path / "opened"))
    with take_up(shop.catalog.jobs, "evaluate", {"queries": queries}) as run:
        context = JobContext(run, settings, shop.catalog)
        with pytest.raises(InvalidInput, match="opens no folder that holds this path"):
            evaluate_job(context, args)
        inside = EvaluateArgs(queries=str(tmp_path / "opened" / "missing.csv"))
        with pytest.raises(InvalidInput, match="there is no file"):
            evaluate_job(context, inside)


def test_systems_are_measured_once_more_with_their_first_products_reranked(
    shop: Bench, tmp_path: Path
) -> None:
    color = nearest_color(striped(3))
    labels = write_labels(tmp_path, [("t", color, "", "<p>3", ""), ("u", "a red thing", "", "<p>8", "")])
    result = shop.evaluate(queries=labels, rerank={"model": "eyes", "depth": PRODUCTS})
    assert [system.name for system in result.systems] == [
        *("eyes", "mole", "both"),
        *("eyes+rerank", "mole+rerank", "both+rerank"),
    ]
    # Colors are drawn at random, so few other products match the text.
    before, after = (result.values[name]["mrr"]["t"] for name in ("mole", "mole+rerank"))
    assert after > max(before, 0.1)
    assert json.loads(json.dumps(result.summary()))["systems"][3]["rerank"] == {
        "model": "eyes",
        "depth": PRODUCTS,
    }


def test_queries_without_text_are_not_reranked(shop: Bench, tmp_path: Path) -> None:
    (tmp_path / "q.png").write_bytes(striped(7))
    labels = write_labels(tmp_path, [("t", "red", "", "<p>3", ""), ("i", "", "q.png", "<p>7", "")])
    result = shop.evaluate(model="eyes", queries=labels, rerank={"model": "eyes"})
    assert set(result.values["eyes"]["mrr"]) == {"t", "i"}
    assert set(result.values["eyes+rerank"]["mrr"]) == {"t"}
    with pytest.raises(InvalidInput, match="re-ranking needs queries with text"):
        shop.evaluate(model="eyes", rerank={"model": "eyes"})


def test_an_unknown_model_cannot_rerank(shop: Bench) -> None:
    with pytest.raises(InvalidInput, match="nobody"):
        shop.evaluate(model="eyes", rerank={"model": "nobody"})


def nearest_color(data: bytes) -> str:
    """The color that the fake matches with this image."""
    encoder = load_encoder(EncoderConfig(name="eyes", family="fake"))
    (caption,) = encoder.write(encoder.decode(data)[None])
    return caption.split()[1]
