"""Environment of Ray and its ports, and the kinds of node that a configuration asks for."""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml
from ray.serve._private.constants import RAY_SERVE_HAPROXY_OBSERVE_ERROR_LIMIT

from core.tcp_ports import free_port, free_ports
from deployments.proxy.haproxy import HAPROXY_SETTINGS
from deployments.proxy.ray_environment import RAY_DEFAULTS, for_one_machine, node_kinds, ray_environment
from jobs import RAY_START_LIMITS
from tests.support.children import Child

HANDED_OUT_FROM = Path("/proc/sys/net/ipv4/ip_local_port_range")


def test_a_port_is_one_that_no_connection_of_somebody_else_can_take() -> None:
    if not HANDED_OUT_FROM.exists():
        pytest.skip("only Linux tells which ports it hands out")
    first = int(HANDED_OUT_FROM.read_text().split()[0])
    assert all(free_port() < first for _ in range(50))
    assert free_ports().stop <= first


def test_a_port_that_is_listened_on_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, free = free_port(), free_port()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", taken))
        listener.listen()
        monkeypatch.setattr("core.tcp_ports._left", iter([taken, free]))
        assert free_port() == free


def test_no_port_is_given_twice() -> None:
    given = [free_port() for _ in range(250)] + [port for _ in range(5) for port in free_ports()]
    assert len(set(given)) == len(given)


def test_two_processes_are_given_no_port_in_common_as_long_as_both_live() -> None:
    """Each takes a quarter of all blocks, so that without a claim they would meet."""
    program = (
        "import sys; from core.tcp_ports import free_port, free_ports; "
        "print(*[free_ports().start for _ in range(30)], *{free_port() // 100 for _ in range(2000)}, flush=True); "
        "sys.stdin.read()"
    )
    command = [sys.executable, "-c", program]
    with Child("ports", command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as one:
        assert one.stdout is not None
        first = one.stdout.readline().split()
        with Child("ports", command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            second = other.stdout.readline().split()
    assert min(len(first), len(second)) >= 50
    assert not {*first} & {*second}


def test_what_is_set_already_stays_and_no_two_listeners_share_a_port(tmp_path: Path) -> None:
    found = ray_environment({"MALLOC_ARENA_MAX": "4"}, tmp_path)
    assert found["MALLOC_ARENA_MAX"] == "4"
    assert (found["TMPDIR"], found["RAY_TMPDIR"]) == (str(tmp_path), tempfile.gettempdir())
    assert RAY_DEFAULTS.items() >= RAY_START_LIMITS.items()
    assert found["RAY_SERVE_ENABLE_HA_PROXY"] == RAY_DEFAULTS["RAY_SERVE_ENABLE_HA_PROXY"]
    kinds = ("HTTP", "GRPC")
    rows = [
        range(
            int(found[f"RAY_SERVE_DIRECT_INGRESS_MIN_{kind}_PORT"]),
            int(found[f"RAY_SERVE_DIRECT_INGRESS_MAX_{kind}_PORT"]) + 1,
        )
        for kind in kinds
    ]
    singles = {
        int(value)
        for name, value in found.items()
        if name.endswith(("_HTTP_PORT", "_GRPC_PORT", "METRICS_PORT", "STATS_PORT"))
        and "DIRECT_INGRESS" not in name
    }
    assert len(rows[0]) == len(rows[1]) == 100
    assert not set(rows[0]) & set(rows[1])
    assert not singles & {*rows[0], *rows[1]}


@pytest.mark.parametrize(
    ("experiments", "known"), [(RAY_DEFAULTS["GRPC_EXPERIMENTS"], True), ("-no_such_thing", False)]
)
def test_grpc_knows_what_is_turned_off_in_it(experiments: str, known: bool) -> None:
    command = [sys.executable, "-c", "import grpc; grpc.insecure_channel('127.0.0.1:1').close()"]
    environment = {**os.environ, "GRPC_EXPERIMENTS": experiments}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert ("Unknown experiment" not in done.stderr) is known


ROOT = Path(__file__).parents[3]


def test_one_machine_offers_every_kind_of_node_that_production_asks_for() -> None:
    content = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    assert node_kinds(content) == {
        "openclip_node": 1.0,
        "dinov2_node": 1.0,
        "blip2_node": 1.0,
        "service_node": 1.0,
    }


def test_a_configuration_may_ask_for_none() -> None:
    assert node_kinds({"applications": [{"name": "a"}, {"name": "b", "deployments": [{"name": "B"}]}]}) == {}


def test_one_machine_runs_all_gateways_of_production() -> None:
    content = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    bounded = [d for a in content["applications"] for d in a["deployments"] if "max_replicas_per_node" in d]
    assert [each["name"] for each in bounded] == ["Gateway"]
    changed = for_one_machine(content)
    assert "max_replicas_per_node" in bounded[0], "the caller's own is kept"
    del bounded[0]["max_replicas_per_node"]
    assert changed == content


def test_the_configuration_lists_the_settings_of_haproxy_that_ray_must_start_with() -> None:
    head = (ROOT / "serve_config.yaml").read_text().partition("\nproxy_location")[0].replace('"', "")
    assert [name for name, value in HAPROXY_SETTINGS.items() if f"{name}={value}" not in head] == []


def test_a_request_is_tried_until_the_gateways_of_a_lost_node_are_taken_out() -> None:
    content = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    deployments = [each for application in content["applications"] for each in application["deployments"]]
    (on_a_node,) = (each["max_replicas_per_node"] for each in deployments if each["name"] == "Gateway")
    retries = int(HAPROXY_SETTINGS["RAY_SERVE_HAPROXY_RETRIES"])
    assert retries >= on_a_node * RAY_SERVE_HAPROXY_OBSERVE_ERROR_LIMIT


def test_the_image_starts_haproxy_with_the_settings_of_vitrine_serve(tmp_path: Path) -> None:
    image = (ROOT / "Dockerfile").read_text().replace('"', "")
    for name, value in HAPROXY_SETTINGS.items():
        assert ray_environment({}, tmp_path)[name] == value
        assert f"{name}={value}" in image
