"""What the search page shows before, without and beside results; encoders in this process, so no Ray."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from tests.e2e.browser.conftest import OpenPage
from tests.support.browser import open_search, put, search_text
from tests.support.local_encoder import LocalEncoder
from tests.support.local_service import local_service, served


@pytest.fixture
def base_url(tmp_path: Path) -> Iterator[str]:
    encoders = {name: LocalEncoder(name) for name in ("first", "second")}
    with local_service(tmp_path, encoders) as app, served(app) as url:
        yield url


@pytest.fixture
def page(base_url: str, open_page: OpenPage) -> Page:
    return open_page(base_url)


def test_an_empty_catalog_is_reported(page: Page) -> None:
    page.goto("/")
    expect(page.locator("#results")).to_contain_text("The catalog is empty")


def test_until_an_answer_comes_its_place_is_held(base_url: str, page: Page) -> None:
    put(base_url, "a", "red")
    held: list[Route] = []
    page.route("**/v1/products?*", lambda route: held.append(route))
    page.goto("/")
    expect(page.locator(".ghost")).to_have_count(12)
    expect(page.locator("#status")).to_have_text("Searching …")
    expect(page.locator("#results")).to_have_attribute("aria-busy", "true")
    (route,) = held
    route.continue_()
    expect(page.locator(".card:not(.ghost)")).to_have_count(1)
    expect(page.locator(".ghost")).to_have_count(0)
    expect(page.locator("#results[aria-busy]")).to_have_count(0)


def test_an_answer_shows_how_long_its_stages_took(base_url: str, page: Page) -> None:
    put(base_url, "a", "red")
    open_search(page)
    with page.expect_response("**/v1/search") as answered:
        search_text(page, "red")
    page.get_by_text("Stages", exact=True).click()
    shown = dict(
        zip(
            page.locator(".timings th").all_text_contents(),
            page.locator(".timings td.number").all_text_contents(),
            strict=True,
        )
    )
    timings = answered.value.json()["timings_ms"]
    assert timings
    assert shown.keys() == timings.keys()
    assert all(abs(float(shown[stage].removesuffix(" ms")) - ms) < 0.06 for stage, ms in timings.items())


def test_sliders_weigh_the_models_of_the_ensemble(base_url: str, page: Page) -> None:
    for color in ("red", "blue"):
        put(base_url, color, color)
    open_search(page)
    search_text(page, "red")
    page.get_by_text("Weights in the ensemble").click()
    with page.expect_response("**/v1/search") as answered:
        page.get_by_role("slider", name="Weight of second").fill("0")
    assert [each["model"] for each in answered.value.json()["models_used"]] == ["first"]
    page.wait_for_url("**second**")
    with page.expect_response("**/v1/search") as answered:
        page.get_by_role("button", name="As configured").click()
    assert {each["model"] for each in answered.value.json()["models_used"]} == {"first", "second"}
    expect(page.get_by_role("button", name="As configured")).to_have_count(0)
