"""Service in which every example of the OpenAPI document works."""

import asyncio
import base64
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import httpx
from fastapi import FastAPI
from PIL import Image

from catalog.database import utc_now
from catalog.fetching.fetcher import Fetcher
from catalog.imports import RowError
from catalog.opening import Catalog
from core.api_keys import ApiKey, digest, new_secret
from core.errors import UnfetchableUrl, VitrineError
from core.jobs import Progress
from deployments.services.jobs import BulkJobs
from models.config import CaptionConfig
from tests.support.local_encoder import LocalEncoder
from tests.support.local_service import local_service, served

MODELS = ("openclip", "dinov2", "blip2")
COLORS = {"dress-3": "#b02030", "dress-8": "#c03040", "hat-7": "#204080", "shirt-1": "#309040"}
JOB, DONE_JOB, IMPORT_JOB = "build-5f0c2a9be417", "evaluate-07d1e6c3a2f5", "import-3d9b60f4c1aa"
KEY = "8c1f0a2b3d4e"
IMAGE_ID = "50d3f5c4bac7e8b4bbd278279420d257"
URL = "https://example.com/dress.jpg"


def image(color: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


class Web:
    """The one image that the examples name by URL."""

    async def fetch(self, url: str) -> bytes:
        if url != URL:
            raise UnfetchableUrl("there is nothing at this URL")
        return image("#b02030")

    async def fetch_all(self, urls: Sequence[str]) -> list[bytes | VitrineError]:
        return [await self.fetch(url) for url in urls]

    def most_bytes(self, urls: int) -> int:
        return urls * len(image("#b02030"))


class Cluster:
    """Takes jobs and does none."""

    def start(self, job_id: str) -> None:
        pass

    def stop(self, job_id: str) -> None:
        pass

    def logs(self, job_id: str, lines: int) -> str:
        return "2026-01-31 09:30:12 INFO 1,024 of 5,000 images, 212 a second\n"


@contextmanager
def documented_service(folder: Path) -> Iterator[FastAPI]:
    encoders = {
        name: LocalEncoder(name, captions=CaptionConfig() if name == "blip2" else None) for name in MODELS
    }
    with local_service(folder, encoders) as app:
        services = app.state.services
        jobs = BulkJobs(services.catalog, Cluster(), 5, MODELS, folders=("/srv",))
        app.state.services = replace(services, fetcher=cast(Fetcher, Web()), jobs=jobs)
        yield app


async def furnish(app: FastAPI, client: httpx.AsyncClient) -> None:
    """Put there what the examples name; the client gets an admin's key."""
    catalog = app.state.services.catalog
    admin, secret = new_secret()
    catalog.api_keys.add(ApiKey(admin, "admin", ("admin",), digest(secret), 1e6, 1_000_000, utc_now()), True)
    catalog.api_keys.add(ApiKey(KEY, "shop", ("read",), "0" * 64, 20.0, 40, utc_now()), True)
    client.headers["Authorization"] = f"Bearer {secret}"
    for product_id, color in COLORS.items():
        name = product_id.partition("-")[0].capitalize()
        body = {"title": name, "attributes": {"brand": "Elm", "price": 49}, "images": [b64(image(color))]}
        answer = await client.put(f"/v1/products/{product_id}", json=body)
        assert answer.is_success, answer.text
    for job_id in (JOB, DONE_JOB, IMPORT_JOB):
        kind, _, drawn_id = job_id.partition("-")
        with patch("catalog.jobs.uuid.uuid4") as drawn:
            drawn.return_value.hex = drawn_id
            assert catalog.jobs.create(kind, {}).job_id == job_id
    _import(catalog)
    report = catalog.reports.put(b"<!doctype html><title>Evaluation</title>")
    catalog.jobs.begin(DONE_JOB)
    catalog.jobs.finish(DONE_JOB, "succeeded", Progress("done"), {"files": {"report.html": report}})


@contextmanager
def served_service(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Serve it over HTTP; gives its base URL and the headers of an admin."""

    async def furnished(app: FastAPI) -> str:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            await furnish(app, client)
            return client.headers["Authorization"]

    with documented_service(folder) as app:
        headers = {"Authorization": asyncio.run(furnished(app))}
        with served(app) as url:
            yield url, headers


def _import(catalog: Catalog) -> None:
    state = catalog.imports.begin("shop", "plan", IMPORT_JOB)
    catalog.imports.save(state, {}, [RowError(17, "hat-9", "the image cannot be read: it is cut off")])


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def examples(operation: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give what httpx is to send for each example of a call."""
    contents = operation.get("requestBody", {}).get("content", {})
    if not contents:
        yield {}
    for kind, content in contents.items():
        for example in content["examples"].values():
            value = example["value"]
            if kind == "multipart/form-data":
                yield _form(value)
            else:
                text = value if isinstance(value, str) else json.dumps(value)
                yield {"content": text, "headers": {"Content-Type": kind}}


def _form(fields: dict[str, Any]) -> dict[str, Any]:
    """Read a form as curl does: `@file` stands for the file of that name."""
    data: dict[str, str] = {}
    files: list[tuple[str, tuple[str, bytes]]] = []
    for name, value in fields.items():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, str) and each.startswith("@"):
                files.append((name, (each[1:], image("#b02030"))))
            else:
                data[name] = each if isinstance(each, str) else json.dumps(each)
    return {"data": data, "files": files}


def path_of(path: str, operation: dict[str, Any]) -> str:
    """Fill the path of a call with ids of what `furnish` has put there."""
    jobs = {"get_report": DONE_JOB, "get_errors": IMPORT_JOB}
    return path.format(
        product_id="dress-3",
        image_id=IMAGE_ID,
        model="openclip",
        fingerprint="6ade946ff261",
        job_id=jobs.get(operation["operationId"], JOB),
        key_id=KEY,
    )
