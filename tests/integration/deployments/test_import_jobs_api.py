"""Imports as the jobs API takes them, and what was wrong with their rows."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from catalog.imports import RowError
from catalog.opening import Catalog
from deployments.services.jobs import BulkJobs
from tests.support.local_encoder import LocalEncoder
from tests.support.local_service import local_service

pytestmark = pytest.mark.anyio
REMOTE = {"kind": "remote", "url": "https://x.test"}
FOLDER = {"kind": "folder", "path": "/srv/shop"}


class Cluster:
    def start(self, job_id: str) -> None: ...

    def stop(self, job_id: str) -> None: ...

    def logs(self, job_id: str, lines: int) -> str:
        return ""


@pytest.fixture
def app(tmp_path: Path) -> Iterator[FastAPI]:
    with local_service(tmp_path, {"both": LocalEncoder("both")}) as app:
        services = app.state.services
        jobs = BulkJobs(services.catalog, Cluster(), 5, models=("both",), folders=("/srv",))
        app.state.services = replace(services, jobs=jobs)
        yield app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as opened:
        yield opened


async def test_an_import_is_taken_and_an_equal_one_refused(client: httpx.AsyncClient) -> None:
    fields = {"product_id": "sku", "images": ["front", "back"]}
    source = {"kind": "manifest", "path": "/srv/shop.csv", "fields": fields}
    body = {"kind": "import", "args": {"source": source, "delete_missing": True}}
    answer = await client.post("/v1/jobs", json=body)
    assert answer.status_code == 202, answer.text
    assert answer.json()["args"] == {"source": source, "delete_missing": True}
    again = await client.post("/v1/jobs", json=body)
    assert again.status_code == 409
    assert answer.json()["job_id"] in again.json()["error"]["message"]


@pytest.mark.parametrize(
    ("args", "param"),
    [
        ({}, "args.source"),
        ({"source": {"kind": "ftp"}}, "args.source"),
        ({"source": FOLDER | {"recursive": True}}, "args.source.folder.recursive"),
        ({"source": {"kind": "folder", "path": "${HOME}"}}, "args"),
        (
            {"source": REMOTE | {"token_env": "HOME"}},
            "args.source.remote.token_env",
        ),
        ({"source": FOLDER, "max_delete_percent": 101}, "args.max_delete_percent"),
        ({"source": {"kind": "folder", "path": "/etc"}}, "args.source.path"),
        ({"source": {"kind": "folder", "path": "/srv/../etc"}}, "args.source.path"),
        ({"source": {"kind": "manifest", "path": "/srvshop.csv"}}, "args.source.path"),
    ],
)
async def test_what_is_wrong_with_an_import_is_named(
    client: httpx.AsyncClient, args: dict[str, Any], param: str
) -> None:
    answer = await client.post("/v1/jobs", json={"kind": "import", "args": args})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, param)


async def test_broken_rows_are_listed_page_by_page(client: httpx.AsyncClient, app: FastAPI) -> None:
    catalog: Catalog = app.state.services.catalog
    job = (await client.post("/v1/jobs", json={"kind": "import", "args": {"source": FOLDER}})).json()[
        "job_id"
    ]
    assert (await client.get(f"/v1/jobs/{job}/errors")).status_code == 404
    state = catalog.imports.begin("shop", "plan", job)
    broken = [RowError(row, None if row == 2 else f"p{row}", "cut off") for row in range(1, 6)]
    catalog.imports.save(state, {}, broken)
    first = (await client.get(f"/v1/jobs/{job}/errors?limit=2")).json()
    assert [each["row"] for each in first] == [1, 2]
    assert first[1] == {"row": 2, "product_id": None, "error": "cut off"}
    rest = (await client.get(f"/v1/jobs/{job}/errors?after=2")).json()
    assert [each["row"] for each in rest] == [3, 4, 5]
    assert (await client.get("/v1/jobs/import-none/errors")).status_code == 404
