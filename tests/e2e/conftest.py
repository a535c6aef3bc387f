"""One running service for all tests here: the demo's configuration, on a free port.

Its logs are JSON, as in production, and it traces requests whose caller does, to a receiver of ours.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from core.tcp_ports import free_port
from demo.catalog import demo_products
from demo.run import put_products
from demo.service import CONFIG, DemoService
from tests.support.children import shown_on_failure
from tests.support.servers import TraceReceiver, trace_receiver
from vitrine import Vitrine

SEED = 7
PRODUCTS = 60


@pytest.fixture(scope="package")
def traces() -> Iterator[TraceReceiver]:
    with trace_receiver() as receiver:
        yield receiver


@pytest.fixture(scope="package")
def log_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vitrine-logs-") as folder:
        yield Path(folder)


@pytest.fixture(scope="package")
def deliveries() -> Iterator[Path]:
    """The folder that imports of the API may read."""
    with tempfile.TemporaryDirectory(prefix="vitrine-deliveries-") as folder:
        yield Path(folder)


@pytest.fixture(scope="package")
def service(traces: TraceReceiver, log_folder: Path, deliveries: Path) -> Iterator[DemoService]:
    # A short path: the address of Milvus Lite is a unix socket in this folder.
    with tempfile.TemporaryDirectory(prefix="vitrine-") as name, pytest.MonkeyPatch.context() as environment:
        environment.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", traces.url)
        home = Path(name)
        config = _configuration(home / "serve_config.yaml", log_folder, deliveries)
        with DemoService(home, free_port(), config) as running, shown_on_failure(running.log_file):
            running.wait_until_ready(timeout_s=300)
            with Vitrine(running.base_url) as shop:
                put_products(shop, demo_products(SEED, PRODUCTS))
            yield running


@pytest.fixture
def client(service: DemoService) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.base_url, timeout=60) as opened:
        yield opened


def _configuration(path: Path, log_folder: Path, deliveries: Path) -> Path:
    content = yaml.safe_load(CONFIG.read_text())
    content["logging_config"] |= {"encoding": "JSON", "logs_dir": str(log_folder)}
    content["tracing_config"] |= {"enabled": True, "sampling_ratio": 0.0}
    (gateway,) = [each for each in content["applications"] if each["name"] == "gateway"]
    gateway["args"]["jobs"] = {"imports": {"folders": [str(deliveries)]}}
    path.write_text(yaml.safe_dump(content))
    return path
