"""The environment and the custom resources that Ray must start with."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.tcp_ports import free_port, free_ports
from deployments.proxy.haproxy import write_launcher

RAY_DEFAULTS = {
    # HAProxy in place of the Python proxy, and handles that skip a thread hop: 10 to 20 times the
    # requests per second. Both are read when Ray starts.
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # The latter would keep 1000 lines of a replica's log in memory, and lose them with the replica.
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",
    # Handles refuse messages above 4 MB without it; images and batches of them are larger.
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
    "RAY_agent_register_timeout_ms": "180000",
    # An HAProxy that is gone is started anew after three looks; by default those are 10 s apart, and nobody
    # is answered meanwhile.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",
    # Ray makes and uses a token of its own accord unless the mode is said.
    "RAY_AUTH_MODE": "disabled",
    # A replica drains for 30 s by default, for load balancers that this machine does not have.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


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


def node_kinds(content: Mapping[str, Any]) -> dict[str, float]:
    """Return the custom resources of all deployments, one of each, for a machine that is every kind of node.

    `content` is a Serve configuration that was checked.
    """
    return {
        name: 1.0
        for application in content.get("applications") or []
        for deployment in application.get("deployments") or []
        for name in (deployment.get("ray_actor_options") or {}).get("resources") or {}
    }
