"""One running service for all end-to-end tests: the demo's configuration on loopback and a free port."""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cli.environment import free_port
from demo.catalog import demo_products
from demo.loading import put_products
from demo.service import DemoService

SEED = 7
PRODUCTS = 60


@pytest.fixture(scope="session")
def service() -> Iterator[DemoService]:
    # A short path: the address of Milvus Lite is a unix socket in this folder.
    with (
        tempfile.TemporaryDirectory(prefix="vitrine-") as home,
        DemoService(Path(home), free_port()) as running,
    ):
        running.wait_until_ready(timeout_s=300)
        asyncio.run(put_products(running.base_url, demo_products(SEED, PRODUCTS)))
        yield running


@pytest.fixture
def client(service: DemoService) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.base_url, timeout=60) as opened:
        yield opened
