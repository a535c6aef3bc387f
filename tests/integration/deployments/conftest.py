"""The HTTP API in this process; a file that needs other encoders has a fixture `encoders` of its own."""

from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from catalog.opening import Catalog
from core.ports import EncoderClient
from tests.support.local_encoder import LocalEncoder
from tests.support.local_service import local_service


@pytest.fixture
def encoders() -> Mapping[str, EncoderClient]:
    return {"first": LocalEncoder("first")}


@pytest.fixture
def app(tmp_path: Path, encoders: Mapping[str, EncoderClient]) -> Iterator[FastAPI]:
    with local_service(tmp_path, encoders) as running:
        yield running


@pytest.fixture
def catalog(app: FastAPI) -> Catalog:
    opened: Catalog = app.state.services.catalog
    return opened


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as opened:
        yield opened
