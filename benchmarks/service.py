"""The real service with one encoder: `vitrine serve`, so HAProxy, gateway and replica, as in production."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from core.tcp_ports import free_port
from demo.service import DemoService

MODEL = "openclip"
_START_S = 180.0


@contextmanager
def serving(home: Path, encoder: dict[str, Any], probe: bytes) -> Iterator[tuple[DemoService, int]]:
    """Run the gateway and an encoder until the context ends; yields the service and its port.

    `probe` is an image; the service is there once it was embedded.
    """
    home.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config = home / "serve_config.json"
    config.write_text(json.dumps(_configuration(home, encoder)), encoding="utf-8")
    with DemoService(home, port, config) as service:
        url = f"http://127.0.0.1:{port}/v1/embed/{MODEL}"
        wait_for_answer(service, lambda: httpx.post(url, files={"image": ("probe.jpg", probe)}, timeout=30))
        yield service, port


def _configuration(home: Path, encoder: dict[str, Any]) -> dict[str, Any]:
    gateway_args = {
        "catalog": {"database_url": f"sqlite:///{home}/catalog.sqlite", "blobs_url": str(home / "blobs")},
        # Embedding alone asks nothing of Milvus.
        "milvus": {"uri": "http://127.0.0.1:1"},
        "admission": {"max_in_flight": 256},
    }
    return configuration(
        application(MODEL, None, "build_encoder", encoder, "Encoder"),
        application("gateway", "/", "build_gateway", gateway_args, "Gateway", {"models": [MODEL]}),
    )


def configuration(*applications: dict[str, Any]) -> dict[str, Any]:
    """Return a complete Serve configuration: on loopback, without access log."""
    return {
        "http_options": {"host": "127.0.0.1"},
        "logging_config": {"log_level": "WARNING", "enable_access_log": False},
        "applications": list(applications),
    }


def application(
    name: str,
    route: str | None,
    builder: str,
    args: dict[str, Any],
    deployment: str,
    user_config: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """One replica of what the builder makes, as it stands in a Serve configuration."""
    return {
        "name": name,
        "route_prefix": route,
        "import_path": f"deployments.app:{builder}",
        "args": args,
        "deployments": [one_replica(deployment, user_config)],
    }


def one_replica(deployment: str, user_config: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the settings of a deployment that Serve's own limits never fill."""
    settings: dict[str, Any] = {
        "name": deployment,
        "num_replicas": 1,
        "max_ongoing_requests": 512,
        "max_queued_requests": 512,
        "graceful_shutdown_timeout_s": 2,
        "ray_actor_options": {"num_cpus": 0.5},
    }
    if user_config is not None:
        settings["user_config"] = user_config
    return settings


def wait_for_answer(
    service: DemoService,
    ask: Callable[[], httpx.Response],
    is_there: Callable[[httpx.Response], bool] = lambda answer: answer.status_code == httpx.codes.OK,
) -> None:
    """Ask until the answer is the one that shows that the service is there.

    Raises:
        RuntimeError: it ended, or has not given that answer within three minutes.
    """
    deadline = time.monotonic() + _START_S
    said = "no answer"
    while time.monotonic() < deadline and service.is_running():
        try:
            answer = ask()
        except httpx.HTTPError as error:
            said = type(error).__name__
        else:
            if is_there(answer):
                return
            said = answer.text
        time.sleep(0.5)
    raise RuntimeError(f"the service did not start ({said}); see {service.log_file}")
