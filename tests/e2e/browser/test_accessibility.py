"""What axe-core finds on the pages."""

from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from demo.service import DemoService
from tests.e2e.browser.conftest import NARROW, WIDE, OpenPage
from tests.support.browser import IMAGE, found, open_search, search_text

SERIOUS = ("serious", "critical")


def searched(page: Page) -> None:
    open_search(page)
    page.get_by_label("choose images").set_input_files(IMAGE)
    search_text(page, "a green dress")
    for panel in ("#models", "#filters", "#saved"):
        page.locator(f"{panel} summary").first.click()


def side_by_side(page: Page) -> None:
    """Three columns: the model that sees only images is left out."""
    searched(page)
    page.get_by_label("Model", exact=True).select_option("all")
    expect(page.locator(".column")).to_have_count(3)


def box(page: Page) -> None:
    searched(page)
    page.get_by_role("button", name="Draw a box").click()


def details(page: Page) -> None:
    searched(page)
    found(page)
    page.locator(".card .open").first.click()


def operations(page: Page) -> None:
    page.goto("/operations")
    expect(page.locator(".list")).to_be_visible()


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("state", [searched, side_by_side, box, details, operations])
def test_axe_finds_no_serious_violation(
    service: DemoService, open_page: OpenPage, state: Callable[[Page], None], width: int
) -> None:
    page = open_page(service.base_url, width)
    state(page)
    assert serious(page) == []
    # Only colors differ in the dark.
    page.emulate_media(color_scheme="dark")
    assert serious(page, {"runOnly": ["color-contrast"]}) == []


def serious(page: Page, options: dict[str, Any] | None = None) -> list[tuple[str, list[str]]]:
    """The rules that are broken seriously, each with some of the elements."""
    response = Axe().run(page, options=options).response
    assert response["passes"]
    found = [each for each in response["violations"] if each["impact"] in SERIOUS]
    return [(each["id"], [node["html"] for node in each["nodes"]][:3]) for each in found]
