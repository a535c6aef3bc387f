"""What compose.yaml starts, as processes: its configuration, environment and demo, with a real PostgreSQL and Milvus.

The image files lie in a folder, for there is no object store here.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from core.tcp_ports import free_port
from demo.service import DemoService
from tests.support.catalog_fixtures import empty_database
from tests.support.children import shown_on_failure
from tests.support.compose import ROOT, compose, example
from vitrine import Unauthenticated, Vitrine

PRODUCTS = 8
KEY = "the-admin-key"
READY_S = 300.0
APP = "/opt/vitrine/app"
STORES = ("VITRINE_DATABASE_URL", "VITRINE_BLOBS_URL", "VITRINE_MILVUS_URI", "VITRINE_MILVUS_TOKEN")
"""The addresses of the other containers: the only variables that are other ones here."""


@dataclass(frozen=True, slots=True)
class Deployment:
    url: str
    services: dict[str, Any]
    folder: Path


@pytest.fixture(scope="module")
def deployment(postgres_server: str, server_uri: str) -> Iterator[Deployment]:
    secrets = {"VITRINE_KEY": KEY, "VITRINE_ADMIN_KEY_SHA256": sha256(KEY.encode()).hexdigest()}
    services = compose(example() | secrets)["services"]
    with (
        tempfile.TemporaryDirectory(prefix="vitrine-", ignore_cleanup_errors=True) as home,
        empty_database(postgres_server) as database_url,
        pytest.MonkeyPatch.context() as environment,
    ):
        folder = Path(home)
        given = services["vitrine"]["environment"]
        here = (database_url, str(folder / "blobs"), server_uri, "")
        assert given.keys() >= set(STORES)
        for name, value in (given | dict(zip(STORES, here, strict=True))).items():
            environment.setenv(name, value.replace(APP, str(ROOT)))
        for name in ("VITRINE_HOME", "VITRINE_URL", "VITRINE_KEY"):
            environment.delenv(name, raising=False)
        config = folder / "serve_config.yaml"
        # In the container it listens on the container's network; here on loopback alone.
        text = (ROOT / services["vitrine"]["command"][-1]).read_text()
        assert text.count("host: 0.0.0.0") == 1
        config.write_text(text.replace("host: 0.0.0.0", "host: 127.0.0.1"))
        with DemoService(folder, free_port(), config) as service, shown_on_failure(service.log_file):
            service.wait_until_ready(READY_S)
            yield Deployment(service.base_url, services, folder)


def test_the_profile_demo_fills_the_catalog(deployment: Deployment) -> None:
    demo = deployment.services["demo"]
    program, *arguments = demo["command"]
    assert program == "python"
    done = subprocess.run(
        [sys.executable, *(each.replace("500", str(PRODUCTS)) for each in arguments)],
        cwd=ROOT,
        env={**os.environ, **demo["environment"], "VITRINE_URL": deployment.url},
        capture_output=True,
        text=True,
        timeout=READY_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with Vitrine(deployment.url, KEY) as shop:
        stats = shop.stats()
        assert stats.products == PRODUCTS
        found = shop.search("a red dress", limit=3)
    assert len(found.results) == 3
    assert {each.model for each in found.models_used} == {"openclip", "blip2"}


def test_it_is_ready_as_its_health_check_asks_and_takes_no_call_without_the_key(
    deployment: Deployment,
) -> None:
    check = deployment.services["vitrine"]["healthcheck"]["test"][-1]
    path = check.removeprefix("http://127.0.0.1:8000")
    assert httpx.get(f"{deployment.url}{path}", timeout=30).status_code == 200
    with Vitrine(deployment.url, key="") as shop, pytest.raises(Unauthenticated):
        shop.stats()


def test_the_image_files_are_where_it_is_said(deployment: Deployment) -> None:
    assert any((deployment.folder / "blobs").rglob("*"))
    assert not list(deployment.folder.glob("*.sqlite*"))
