"""How a Ray of our own is started."""

from pathlib import Path
from typing import Any

import pytest
from ray._private import parameter, ray_constants, services

from jobs.runner.cluster import agent_ports
from jobs.runner.settings import settings_of_file
from jobs.runner.start import _cluster


def test_a_raylet_gets_the_port_of_the_agent_of_its_dashboard(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []

    def start(command: list[str], process_type: str, *args: Any, **options: Any) -> None:
        started.append(command)

    monkeypatch.setattr(services, "start_ray_process", start)
    with agent_ports() as ports:
        services.start_ray_process(["raylet"], ray_constants.PROCESS_TYPE_RAYLET)
        services.start_ray_process(["dashboard"], ray_constants.PROCESS_TYPE_DASHBOARD)
    port = ports["dashboard_agent_listen_port"]
    assert started == [["raylet", f"--dashboard_agent_listen_port={port}"], ["dashboard"]]


def test_a_node_gets_the_ports_of_its_agents_and_no_autoscaler_of_nodes() -> None:
    with agent_ports() as ports:
        params = parameter.RayParams()
    assert params.no_monitor
    assert params.metrics_export_port == ports["metrics_export_port"]
    assert not parameter.RayParams().no_monitor


def test_a_ray_of_a_job_is_every_kind_of_node_that_encoders_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict[str, Any]] = []
    for name in ("RAY_ADDRESS", "VITRINE_MILVUS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VITRINE_DATABASE_URL", "postgresql://vitrine@db/vitrine")
    monkeypatch.setenv("VITRINE_BLOBS_URL", "s3://images")
    monkeypatch.setenv("VITRINE_MILVUS_URI", "http://milvus:19530")
    monkeypatch.setenv("VITRINE_ADMIN_KEY_SHA256", "0" * 64)
    monkeypatch.setattr("jobs.runner.cluster.start_ray", lambda **options: started.append(options))
    monkeypatch.setattr("ray.shutdown", lambda: None)
    settings = settings_of_file(Path(__file__).parents[3] / "serve_config.yaml")
    with _cluster("build", None, settings):
        pass
    asked = {
        name for each in settings.encoders.values() for name in each.resources(settings.bulk)["resources"]
    }
    assert len(asked) == 3
    # An actor takes a thousandth.
    assert started[0]["resources"] == dict.fromkeys(asked, 1.0)
