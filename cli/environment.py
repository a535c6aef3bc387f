"""The environment that Ray must start with; it cannot be set afterwards."""

import random
import socket
import tempfile
from collections.abc import Mapping
from itertools import cycle, islice
from pathlib import Path

from cli.haproxy import write_launcher

RAY_DEFAULTS = {
    # HAProxy in place of the Python proxy, and handles that skip a thread hop: 10 to 20 times the
    # requests per second. Both are read when Ray starts.
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # The latter would keep 1000 lines of a replica's log in memory, and lose them with the replica.
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",
    # Handles refuse messages above 4 MB without it; pictures and batches of them are larger.
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(64 * 2**20),
    # A heap for each of a replica's threads is what glibc would make, and requests that pass through many
    # threads leave holes in all of them: a gateway grew by half a KB a request, and with two
    # it does not.
    "MALLOC_ARENA_MAX": "2",
    # gRPC's new event engine passes each message through two threads of its own, which on a machine with few
    # cores wait for each other: a search took 0.7 ms longer, of 14. Ray's own processes read it as well.
    "GRPC_EXPERIMENTS": "-event_engine_client,-event_engine_listener",
    # A proxy that is not ready at the third look is started anew, which makes a busy machine busier.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "20",
    # Ray makes and uses a token of its own accord unless the mode is said.
    "RAY_AUTH_MODE": "disabled",
    # A replica drains for 30 s by default, for load balancers that this machine does not have.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}

REPLICA_PORTS = 100
"""Ports that the replicas of one service may use."""

# Below what the system itself hands out: of those, any connection may take one before its listener starts.
_ROWS = range(10_000, 22_000)
# One after the other from anywhere: processes that drew each port anew would meet far more often.
_SINGLES = islice(cycle(range(22_000, 32_000)), random.randrange(10_000), None)


def ray_environment(current: Mapping[str, str], scratch: Path) -> dict[str, str]:
    """Return what Vitrine needs of Ray, for one service on this machine; what is set already stays, but TMPDIR.

    HAProxy's files and temporary ones go to `scratch`, and the ports beside the service's own are free ones, so that
    services on one machine keep out of each other's way: Serve's listeners share a port that another
    service listens on, and would answer its requests.
    """
    ports = free_ports(2 * REPLICA_PORTS)
    http, grpc = ports[:REPLICA_PORTS], ports[REPLICA_PORTS:]
    own = {
        # Where Ray keeps its logs by itself.
        "RAY_TMPDIR": tempfile.gettempdir(),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(http.start),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(http.stop - 1),
        "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(grpc.start),
        "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(grpc.stop - 1),
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(write_launcher(scratch)),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(scratch / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(scratch / "haproxy.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(scratch),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(scratch / "haproxy.state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(scratch / "metrics.sock"),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
    }
    # Processes that Ray kills leave files of theirs, which go with the scratch folder.
    return {**RAY_DEFAULTS, **own, **current, "TMPDIR": str(scratch)}


def free_ports(count: int) -> range:
    """Find that many TCP ports in a row that nothing listens on."""
    while True:
        ports = range(start := random.randrange(_ROWS.start, _ROWS.stop - count), start + count)
        if all(_is_free(port) for port in ports):
            return ports


def free_port() -> int:
    """Find a TCP port that nothing listens on, and none that was just given: its listener starts later."""
    return next(port for port in _SINGLES if _is_free(port))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
