"""The environment that Ray must start with; it cannot be set afterwards."""

import random
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from cli.haproxy import write_launcher
from core.errors import Unavailable

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
    # Ray waits 30 s for its own processes to start, which on a busy machine take longer; `jobs` says the same.
    "RAY_raylet_start_wait_time_s": "180",
    "RAY_gcs_server_port_wait_time_s": "180",
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
_ROWS = range(10_000, 22_000, REPLICA_PORTS)
_SINGLES = range(22_000, 32_000, REPLICA_PORTS)
_held: list[socket.socket] = []
_left: Iterator[int] = iter(())


def ray_environment(current: Mapping[str, str], scratch: Path) -> dict[str, str]:
    """Return what Vitrine needs of Ray, for one service on this machine; what is set already stays, but TMPDIR.

    HAProxy's files and temporary ones go to `scratch`, and the ports beside the service's own are free ones, so that
    services on one machine keep out of each other's way: Serve's listeners share a port that another
    service listens on, and would answer its requests.
    """
    http, grpc = free_ports(), free_ports()
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


def free_ports() -> range:
    """Find `REPLICA_PORTS` TCP ports in a row that nothing listens on and no other process has been given.

    Raises:
        Unavailable: there are no more.
    """
    return _claim(_ROWS)


def free_port() -> int:
    """Find a TCP port that nothing listens on and that nobody has been given: its listener starts later.

    Raises:
        Unavailable: there are no more.
    """
    global _left
    while True:
        for port in _left:
            if _is_free(port):
                return port
        _left = iter(_claim(_SINGLES))


def _claim(blocks: range) -> range:
    """Take a block of ports for as long as this process lives."""
    for start in random.sample(blocks, len(blocks)):
        ports = range(start, start + REPLICA_PORTS)
        if _hold(start) and all(_is_free(port) for port in ports):
            return ports
    raise Unavailable("no ports are free for a service on this machine")


def _hold(start: int) -> bool:
    """Tell whether a block is ours alone.

    The name of an abstract socket is a lock that leaves no file, and that goes when its process does. Only
    Linux has them; elsewhere two processes may meet, if they draw the same block in the same moment.
    """
    if sys.platform != "linux":
        return True
    lock = socket.socket(socket.AF_UNIX)
    with suppress(OSError):
        lock.bind(f"\0vitrine-ports-{start}")
        _held.append(lock)
        return True
    lock.close()
    return False


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
