"""The page at a service that wants keys; encoders in this process, so no Ray."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from playwright.sync_api import expect

from tests.e2e.browser.conftest import OpenPage
from tests.support.browser import put
from tests.support.local_encoder import LocalEncoder
from tests.support.local_service import local_service, served


@pytest.fixture
def app(tmp_path: Path) -> Iterator[FastAPI]:
    with local_service(tmp_path, {"openclip": LocalEncoder("openclip")}) as running:
        yield running


def test_a_key_is_asked_for_and_shows_images_too(app: FastAPI, open_page: OpenPage) -> None:
    with served(app) as base_url:
        put(base_url, "a", "red")
        made = httpx.post(f"{base_url}/v1/keys", json={"name": "first", "scopes": ["admin"]})
        page = open_page(base_url, expected="401")
        page.goto("/")
        page.get_by_label("Key", exact=True).fill("vitrine_wrong")
        page.get_by_role("button", name="Use this key").click()
        expect(page.get_by_role("dialog")).to_contain_text("not known")
        page.get_by_label("Key", exact=True).fill(made.json()["key"])
        page.get_by_role("button", name="Use this key").click()
        expect(page.locator(".card")).to_have_count(1)
        page.wait_for_function("() => document.querySelector('.card img').naturalWidth > 0")
        assert page.evaluate("[sessionStorage.length, localStorage.length]") == [1, 0]


def test_without_a_key_the_page_says_why_it_shows_nothing(app: FastAPI, open_page: OpenPage) -> None:
    with served(app) as base_url:
        httpx.post(f"{base_url}/v1/keys", json={"name": "first", "scopes": ["admin"]}).raise_for_status()
        page = open_page(base_url, expected="401")
        page.goto("/")
        page.get_by_role("button", name="Cancel").click()
        expect(page.get_by_role("alert")).to_contain_text("An API key is needed")
        expect(page.get_by_role("button", name="Try again")).to_be_visible()
