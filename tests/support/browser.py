"""Debian's Chromium, and what a visitor sees of the search page."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from tests.support.image_files import png

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MISSING = "no Chromium is on this machine's path; on Debian: apt-get install chromium"


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run the browser without a window until the context ends; there must be one."""
    # Chromium's sandbox does not work for root, as who containers run.
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield opened
        opened.close()


IMAGE = Path(__file__).parents[2] / "demo" / "samples" / "dress.jpg"


def put(base_url: str, product_id: str, color: str, size: tuple[int, int] = (8, 8), **metadata: Any) -> None:
    """Give a service a product of one image."""
    files = {"images": ("a.png", png(color, size=size))}
    data = {"metadata": json.dumps(metadata)}
    httpx.put(f"{base_url}/v1/products/{product_id}", data=data, files=files).raise_for_status()


def open_search(page: Page, address: str = "/") -> None:
    """Open the page and wait until it shows products and models."""
    page.goto(address)
    expect(page.locator(".card").first).to_be_visible()
    expect(page.get_by_label("Model", exact=True)).to_be_visible()


def search_text(page: Page, text: str) -> list[str]:
    """Search by text as a visitor does."""
    page.get_by_label("Text", exact=True).fill(text)
    page.get_by_role("button", name="Search", exact=True).click()
    return found(page)


def found(page: Page) -> list[str]:
    """Wait for an answer and read the ids of the products that it shows."""
    expect(page.locator("#results .score").first).to_be_visible()
    expect(page.locator("#results[aria-busy]")).to_have_count(0)
    return shown(page.locator("#results"))


def shown(place: Locator) -> list[str]:
    """The ids of the products in a place."""
    return [str(card.get_attribute("data-product")) for card in place.locator(".card").all()]


def answered(page: Page) -> "str | None":
    """What the page names the last answer."""
    return page.locator("#status").text_content()
