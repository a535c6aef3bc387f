"""The environment and the custom resources that Ray must start with."""

import tempfile
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from core.tcp_ports import free_port, free_ports
from deployments.proxy.haproxy import HAPROXY_SETTINGS, write_launcher

RAY_DEFAULTS = {
    # HAProxy in place of the Python proxy, and handles that skip a thread hop. Together they answer 10 to 20
    # times the requests per second. Ray reads both when it starts.
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # Throughput mode would buffer 1000 log lines of a replica in memory, and lose them with the replica.
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",
    # Handles refuse messages above 4 MB by default. Batches of images are larger.
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(64 * 2**20),
    # glibc makes a heap for each thread by default, and requests that pass through many threads fragment all
    # of them. A gateway grew by half a KB per request. With two heaps it does not.
    "MALLOC_ARENA_MAX": "2",
    # gRPC's event engine passes each message through two threads, which wait for each other on few cores. A
    # search took 0.7 ms longer, of 14 ms. Ray's own processes read the setting as well.
    "GRPC_EXPERIMENTS": "-event_engine_client,-event_engine_listener",
    # Serve restarts a proxy that fails three readiness checks, which loads a busy machine further.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "20",
    # Ray waits 30 s for its own processes by default. On a busy machine they take longer. `jobs` sets the same.
    "RAY_raylet_start_wait_time_s": "180",
    "RAY_gcs_server_port_wait_time_s": "180",
    "RAY_agent_register_timeout_ms": "180000",
    # Serve restarts an HAProxy that died after three health checks. By default they are 10 s apart, and no
    # request is answered meanwhile.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",
    # Replicas and handles set their gauges anew ten times a second by default, and Ray exports them every 10 s.
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "2000",
    # The controller looks at all deployments ten times a second by default.
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
    # Each worker of Ray looks for signals 100 times a second, and keeps statistics of that by default.
    "RAY_event_stats": "0",
    # Ray makes and uses a token by default.
    "RAY_AUTH_MODE": "disabled",
    # A replica drains for 30 s by default, for load balancers that one machine does not have.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    **HAPROXY_SETTINGS,
}


def ray_environment(current: Mapping[str, str], scratch: Path) -> dict[str, str]:
    """Return the environment that Ray needs for one service on this machine.

    Variables of `current` win, except for TMPDIR. HAProxy's files and temporary files go to `scratch`.

    Ports beside the service's own are free ones. Serve's listeners share ports, so a second service on the same
    port would answer requests of the first.
    """
    http, grpc = free_ports(), free_ports()
    own = {
        # Ray's default folder for its logs, in spite of TMPDIR.
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
    # Processes that Ray kills leave temporary files, which go with the scratch folder.
    return {**RAY_DEFAULTS, **own, **current, "TMPDIR": str(scratch)}


def node_kinds(content: Mapping[str, Any]) -> dict[str, float]:
    """Return one of each custom resource that deployments ask for, for a machine that is every kind of node.

    `content` is a checked Serve configuration.
    """
    return {
        name: 1.0
        for application in content.get("applications") or []
        for deployment in application.get("deployments") or []
        for name in (deployment.get("ray_actor_options") or {}).get("resources") or {}
    }


def for_one_machine(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checked Serve configuration without bounds of replicas for each node.

    With such a bound, the replicas beyond it would wait for a second node that never comes.
    """
    changed = deepcopy(dict(content))
    for application in changed.get("applications") or []:
        for deployment in application.get("deployments") or []:
            deployment.pop("max_replicas_per_node", None)
    return changed
