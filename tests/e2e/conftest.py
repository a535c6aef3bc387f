"""One running service for all end-to-end tests: the demo's configuration on loopback and a free port."""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from cli.environment import free_port
from demo.catalog import demo_products
from demo.loading import put_products
from demo.service import CONFIG, DemoService

SEED = 7
PRODUCTS = 60


@pytest.fixture(scope="session")
def deliveries() -> Iterator[Path]:
    """The folder that imports of the API may read."""
    with tempfile.TemporaryDirectory(prefix="vitrine-deliveries-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def service(deliveries: Path) -> Iterator[DemoService]:
    # A short path: the address of Milvus Lite is a unix socket in this folder.
    with tempfile.TemporaryDirectory(prefix="vitrine-") as name:
        home = Path(name)
        config = _configuration(home / "serve_config.yaml", deliveries)
        with DemoService(home, free_port(), config) as running:
            running.wait_until_ready(timeout_s=300)
            asyncio.run(put_products(running.base_url, demo_products(SEED, PRODUCTS)))
            yield running


@pytest.fixture
def client(service: DemoService) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.base_url, timeout=60) as opened:
        yield opened


def _configuration(path: Path, deliveries: Path) -> Path:
    content = yaml.safe_load(CONFIG.read_text())
    (gateway,) = [each for each in content["applications"] if each["name"] == "gateway"]
    gateway["args"]["jobs"] = {"imports": {"folders": [str(deliveries)]}}
    path.write_text(yaml.safe_dump(content))
    return path
