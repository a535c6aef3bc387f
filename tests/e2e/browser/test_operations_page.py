"""The operations page in a real browser, on the demo's service."""

import pytest
from playwright.sync_api import Locator, Page, expect

from demo.service import DemoService
from tests.e2e.browser.conftest import NARROW, WIDE, OpenPage, screenshot

JOB_MS = 300_000
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
    expect(job.locator("header span").first).to_have_text("succeeded", timeout=JOB_MS)
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


def test_a_model_is_upgraded_and_rolled_back(page: Page) -> None:
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
