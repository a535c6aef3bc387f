"""How a Ray of our own is started: its agents' ports, and the modules of its dashboard."""

from typing import Any

import pytest
from ray._private import ray_constants, services

from jobs.runner.cluster import agent_ports


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands of the processes that would have been started."""
    commands: list[list[str]] = []

    def start(command: list[str], process_type: str, *args: Any, **options: Any) -> None:
        commands.append(command)

    monkeypatch.setattr(services, "start_ray_process", start)
    return commands


def test_a_dashboard_has_only_the_modules_that_are_asked_for(started: list[list[str]]) -> None:
    with agent_ports(("JobHead", "StateHead")):
        services.start_ray_process(["dashboard.py"], ray_constants.PROCESS_TYPE_DASHBOARD)
    assert started == [["dashboard.py", "--modules-to-load=JobHead,StateHead"]]


def test_a_dashboard_has_all_modules_by_default(started: list[list[str]]) -> None:
    with agent_ports():
        services.start_ray_process(["dashboard.py"], ray_constants.PROCESS_TYPE_DASHBOARD)
    assert started == [["dashboard.py"]]


def test_a_node_without_a_dashboard_keeps_the_list_of_ray(started: list[list[str]]) -> None:
    command = ["dashboard.py", "--modules-to-load=UsageStatsHead", "--disable-frontend"]
    with agent_ports(("JobHead",)):
        services.start_ray_process(command, ray_constants.PROCESS_TYPE_DASHBOARD)
    assert started == [command]


def test_a_raylet_gets_the_port_of_the_agent_and_no_modules(started: list[list[str]]) -> None:
    with agent_ports(("JobHead",)) as ports:
        services.start_ray_process(["raylet"], ray_constants.PROCESS_TYPE_RAYLET)
    port = ports["dashboard_agent_listen_port"]
    assert started == [["raylet", f"--dashboard_agent_listen_port={port}"]]
