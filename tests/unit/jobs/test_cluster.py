"""How a Ray of our own is started."""

from typing import Any

import pytest
from ray._private import parameter, ray_constants, services

from jobs.runner.cluster import agent_ports


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
