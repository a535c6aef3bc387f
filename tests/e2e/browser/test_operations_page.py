"""The operations page in a real browser: on the demo's service, and on encoders in this process."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi import FastAPI
from playwright.sync_api import Locator, Page, expect

from catalog.opening import Catalog
from core.errors import InvalidImage
from core.indexing import Indexer
from core.jobs import Progress
from core.types import NewImage
from demo.service import DemoService
from deployments.services.jobs import BulkJobs
from jobs.upgrade.prune import drop
from milvus.memory import MemoryStore
from tests.e2e.browser.conftest import NARROW, WIDE, OpenPage, screenshot
from tests.support.browser import put
from tests.support.documented_service import Cluster, image
from tests.support.indexed import repair
from tests.support.local_encoder import LocalEncoder
from tests.support.local_service import local_service, served

MODEL = "dinov2"


def open_operations(page: Page) -> None:
    page.goto("/operations")
    expect(page.locator(".list")).to_be_visible()


def rows(page: Page, model: str) -> Locator:
    return page.locator("#versions tbody tr").filter(has_text=model)


def run_step(page: Page, button: str, kind: str, options: dict[str, str] | None = None) -> Locator:
    """Press the button of a step, answer its question, and wait for the end of its job."""
    page.get_by_role("button", name=button, exact=True).click()
    for label, value in (options or {}).items():
        page.get_by_label(label).fill(value)
    if options is not None:
        page.get_by_role("button", name="Go ahead").click()
    job = page.locator(".job").first
    expect(job.locator("h3")).to_have_text(kind)
    expect(job.locator("header span").first).to_have_text("succeeded")
    return job


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_models_versions_and_counts_are_shown(service: DemoService, open_page: OpenPage, width: int) -> None:
    page = open_page(service.base_url, width)
    open_operations(page)
    for model in ("openclip", "dinov2", "blip2"):
        expect(rows(page, model).first).to_contain_text("serves, live")
    stored = page.request.get("/v1/stats").json()["products"]
    expect(page.locator("#health")).to_contain_text(str(stored))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    screenshot(page, "operations")


def test_a_refused_step_says_why(service: DemoService, open_page: OpenPage) -> None:
    page = open_page(service.base_url, expected="422")
    open_operations(page)
    page.get_by_label("Checkpoint").fill("${HOME}/weights")
    page.get_by_role("button", name="Plan", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("may not refer to the environment")


@pytest.fixture
def app(tmp_path: Path) -> Iterator[FastAPI]:
    with local_service(tmp_path, {"first": LocalEncoder("first")}) as running:
        services = running.state.services
        jobs = BulkJobs(services.catalog, Cluster(), 5, models=("first",), folders=())
        running.state.services = replace(services, jobs=jobs)
        yield running


class Upgrades(Cluster):
    """Does at once, in this process, what the jobs of an upgrade do to versions."""

    def __init__(self, app: FastAPI, store: MemoryStore, encoder: LocalEncoder) -> None:
        self._catalog: Catalog = app.state.services.catalog
        self._store, self._serving = store, encoder
        self._versions = [encoder._encoder, LocalEncoder(MODEL, "candidate")._encoder]

    def start(self, job_id: str) -> None:
        kind = self._catalog.jobs.begin(job_id).kind
        result = None
        if kind == "build":
            self._index(LocalEncoder(MODEL, "candidate"))
        elif kind == "evaluate":
            result = {"files": {"report.html": self._catalog.reports.put(b"<h1>Evaluation</h1>")}}
        elif kind == "prune":
            drop(self._catalog, self._store, self._versions[1].info)
        else:
            self._serving._encoder = self._versions[kind == "promote"]
            self._store.set_alias(MODEL, self._serving._encoder.info.collection)
        self._catalog.jobs.finish(job_id, "succeeded", Progress("done"), result)

    def _index(self, encoder: LocalEncoder) -> None:
        parts = self._store, self._catalog.ledger, self._catalog.blobs
        asyncio.run(repair(Indexer(encoder, *parts)))


def test_a_model_is_upgraded_and_rolled_back(tmp_path: Path, open_page: OpenPage) -> None:
    store, encoder = MemoryStore(), LocalEncoder(MODEL)
    with local_service(tmp_path, {MODEL: encoder}, store) as app, served(app) as base_url:
        services = app.state.services
        jobs = BulkJobs(services.catalog, Upgrades(app, store, encoder), 5, models=(MODEL,), folders=())
        app.state.services = replace(services, jobs=jobs)
        put(base_url, "a-hat", "red")
        page = open_page(base_url)
        upgrade_and_roll_back(page)


def upgrade_and_roll_back(page: Page) -> None:
    open_operations(page)
    before = page.request.get("/v1/models").json()
    page.get_by_label("Model", exact=True).select_option(MODEL)
    page.get_by_label("Pooling").fill("mean")
    run_step(page, "Build", "build")
    report = run_step(page, "Evaluate", "evaluate").get_by_role("button", name="Evaluation report")
    with page.expect_popup() as opened:
        report.click()
    expect(opened.value.locator("h1")).to_be_visible()
    opened.value.close()
    screenshot(page, "upgrade")
    run_step(page, "Promote", "promote", {"Promote whatever the quality gate says, because": "a test"})
    expect(rows(page, MODEL)).to_have_count(2)
    expect(rows(page, MODEL).nth(1)).to_contain_text("serves, live")
    expect(rows(page, MODEL).nth(0)).to_contain_text("kept")
    run_step(page, "Roll back", "rollback", {})
    expect(rows(page, MODEL).nth(0)).to_contain_text("serves, live")
    run_step(page, "Prune", "prune", {"Earlier versions to keep": "0"})
    expect(rows(page, MODEL)).to_have_count(1)
    after = page.request.get("/v1/models").json()
    served = [[each["serving"]["fingerprint"] for each in models] for models in (before, after)]
    assert served[0] == served[1]


def test_gaps_and_quarantine_are_shown_with_thumbnails(app: FastAPI, open_page: OpenPage) -> None:
    catalog = app.state.services.catalog
    with served(app) as base_url:
        put(base_url, "a-hat", "red")
        (info,) = catalog.ledger.versions()
        broken = catalog.ledger.items("a-hat")
        catalog.ledger.open(info.collection, broken)
        catalog.ledger.fail(info.collection, [(each, InvalidImage("the file is cut off")) for each in broken])
        catalog.products.put("b-hat", "", "", {}, [NewImage(image("blue"), "image/png", 8, 8)])
        # With gaps the service is not ready, which the browser writes down.
        page = open_page(base_url, NARROW, expected="503")
        page.goto("/operations")
        page.get_by_role("button", name="Show the gaps of first").click()
        gaps = page.locator(".gap-list li")
        expect(gaps).to_have_text(["a-hatInvalidImage: the file is cut off", "b-hat"])
        page.wait_for_function(
            "() => [...document.querySelectorAll('.gap-list img')].every((each) => each.naturalWidth > 0)"
        )
        screenshot(page, "gaps")
        page.get_by_role("button", name="Close").click()
        expect(page.get_by_role("button", name="Show the gaps of first")).to_be_focused()


def test_a_running_job_shows_a_bar_and_can_be_canceled(app: FastAPI, open_page: OpenPage) -> None:
    jobs = app.state.services.catalog.jobs
    with served(app) as base_url:
        put(base_url, "a-hat", "red")
        job = jobs.begin(jobs.create("build", {"model": "first"}).job_id)
        jobs.beat(job.job_id, Progress("indexing", total=200, done=50, images_per_s=25.0, eta_s=6.0))
        page = open_page(base_url)
        page.goto("/operations")
        bar = page.get_by_role("progressbar", name="indexing")
        expect(bar).to_have_js_property("position", 0.25)
        expect(page.locator(".job")).to_contain_text("50 of 200 · 25 images/s · 6 s to go")
        page.get_by_role("button", name=f"Cancel {job.job_id}").click()
        expect(page.locator(".job .state")).to_have_text("canceled")


def test_a_job_that_has_failed_says_why_and_one_that_has_succeeded_what_came_of_it(
    app: FastAPI, open_page: OpenPage
) -> None:
    jobs = app.state.services.catalog.jobs
    refusal = {"quality_gate": {"passed": False, "reason": "refused: ndcg@10 goes from 0.9 to 0.8"}}
    for kind, state, result, error in (
        ("promote", "failed", refusal, "the quality gate refuses it"),
        ("plan", "succeeded", {"missing": 1200, "predicted_s": 61.26}, None),
    ):
        job = jobs.begin(jobs.create(kind, {"model": "first"}).job_id)
        jobs.finish(job.job_id, state, Progress("done"), result, error)
    with served(app) as base_url:
        put(base_url, "a-hat", "red")
        page = open_page(base_url)
        page.goto("/operations")
        expect(page.locator(".job")).to_have_count(2)
        plan, promotion = page.locator(".job").all()
        expect(plan).to_contain_text("1,200")
        expect(plan).to_contain_text("61.3")
        expect(promotion).to_contain_text("the quality gate refuses it")
        expect(promotion).to_contain_text("Quality gate refused: ndcg@10 goes from 0.9 to 0.8")
