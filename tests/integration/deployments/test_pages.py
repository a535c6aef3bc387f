"""The files of the pages: public, tagged, light, and strict about what they may load."""

import re
import shutil
import subprocess
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from deployments.http.routes.pages import FOLDER, MEDIA_TYPES, read_web_files
from tests.support.local_encoder import LocalEncoder
from tests.support.local_service import local_service

pytestmark = pytest.mark.anyio
MAX_PAGE_BYTES = 150 * 1024


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A stranger at a service that wants keys."""
    with local_service(tmp_path, {"first": LocalEncoder("first")}) as app:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as opened:
            made = await opened.post("/v1/keys", json={"name": "first", "scopes": ["admin"]})
            assert made.status_code == 201, made.text
            yield opened


@pytest.mark.parametrize("path", ["/", "/operations", "/?q=a+red+dress&unknown=1"])
async def test_pages_need_no_key_but_data_do(client: httpx.AsyncClient, path: str) -> None:
    page = await client.get(path)
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert (await client.get("/v1/products")).status_code == 401


async def test_the_openapi_document_is_built_beside_the_event_loop(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    builders: list[threading.Thread] = []

    def build(_app: FastAPI) -> dict[str, str]:
        builders.append(threading.current_thread())
        return {"openapi": "3.1.0"}

    monkeypatch.setattr("deployments.http.app._App.openapi", build)
    answer = await client.get("/v1/openapi.json")
    assert answer.json() == {"openapi": "3.1.0"}
    assert threading.current_thread() not in builders
    assert len(builders) == 1


async def test_what_the_page_shows_of_a_product_needs_no_key(client: httpx.AsyncClient) -> None:
    answer = await client.get("/web/settings.json")
    assert answer.json() == {"attributes": None, "currency": None}
    assert answer.headers["cache-control"] == "no-cache"


async def test_every_file_that_a_page_names_is_there(client: httpx.AsyncClient) -> None:
    for page in ("/", "/operations"):
        html = (await client.get(page)).text
        for path in re.findall(r'(?:src|href)="(web/[^"]+)"', html):
            assert (await client.get(f"/{path}")).status_code == 200, path
    for name, file in read_web_files().items():
        for module in re.findall(rb'from "\./([^"]+)"', file.data):
            assert f"js/{module.decode()}" in read_web_files(), name


async def test_a_browser_that_has_a_file_gets_no_second_copy(client: httpx.AsyncClient) -> None:
    first = await client.get("/web/style.css")
    assert first.headers["cache-control"] == "no-cache"
    again = await client.get("/web/style.css", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_files_are_compressed_for_who_can_read_that(client: httpx.AsyncClient) -> None:
    packed = await client.get("/web/style.css", headers={"Accept-Encoding": "gzip"})
    plain = await client.get("/web/style.css", headers={"Accept-Encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"])
    assert packed.content == plain.content


async def test_the_policy_allows_nothing_from_elsewhere_and_no_inline_script(
    client: httpx.AsyncClient,
) -> None:
    for page in ("/", "/operations"):
        answer = await client.get(page)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert not re.search(r"<script(?![^>]*\bsrc=)|\sstyle=|\son\w+=", answer.text)
        assert not re.search(r'(?:src|href)="https?:', answer.text)


@pytest.mark.parametrize("path", ["/web/", "/web/none.js", "/web/../pages.py", "/web/%2e%2e/pages.py"])
async def test_nothing_else_is_served(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code in (401, 404)


def test_the_pages_are_light() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= MAX_PAGE_BYTES
    assert {path.suffix for path in FOLDER.rglob("*") if path.is_file()} <= set(MEDIA_TYPES)


def test_scripts_are_small_and_can_be_parsed() -> None:
    scripts = sorted(FOLDER.rglob("*.js"))
    assert len(scripts) > 20
    for script in scripts:
        text = script.read_text()
        assert text.startswith("/**"), f"{script.name} does not say what it is for"
        assert len(text.splitlines()) <= 160, script.name
        assert "innerHTML" not in text
    if (node := shutil.which("node")) is None:
        pytest.skip("there is no node to check the syntax with")
    for script in scripts:
        subprocess.run([node, "--check", str(script)], check=True, timeout=30)
