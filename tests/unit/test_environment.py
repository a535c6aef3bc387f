"""What a service on this machine starts with, and the ports that it takes."""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cli.environment import RAY_DEFAULTS, free_port, free_ports, ray_environment

HANDED_OUT_FROM = Path("/proc/sys/net/ipv4/ip_local_port_range")


def test_a_port_is_one_that_no_connection_of_somebody_else_can_take() -> None:
    if not HANDED_OUT_FROM.exists():
        pytest.skip("only Linux tells which ports it hands out")
    first = int(HANDED_OUT_FROM.read_text().split()[0])
    assert all(free_port() < first for _ in range(50))
    assert free_ports(100).stop <= first


def test_a_port_that_is_listened_on_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, free = free_port(), free_port()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", taken))
        listener.listen()
        monkeypatch.setattr("cli.environment._SINGLES", iter([taken, free]))
        assert free_port() == free


def test_no_port_is_given_twice() -> None:
    # Of 10,000, as many as these would meet with near certainty if each were drawn anew.
    given = [free_port() for _ in range(400)]
    assert len(set(given)) == len(given)


def test_what_is_set_already_stays_and_no_two_listeners_share_a_port(tmp_path: Path) -> None:
    found = ray_environment({"MALLOC_ARENA_MAX": "4"}, tmp_path)
    assert found["MALLOC_ARENA_MAX"] == "4"
    assert (found["TMPDIR"], found["RAY_TMPDIR"]) == (str(tmp_path), tempfile.gettempdir())
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
