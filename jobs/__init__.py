"""Bulk work on Ray Data."""

import os

# Ray waits 30 s for its processes to start, which on a machine where another Ray starts at the same time may take
# longer. Ray reads it when it is imported, and every module of this package may be the first to do that.
RAY_START_LIMITS = {
    "RAY_raylet_start_wait_time_s": "180",
    "RAY_gcs_server_port_wait_time_s": "180",
    "RAY_agent_register_timeout_ms": "180000",
}
for _name, _seconds in RAY_START_LIMITS.items():
    os.environ.setdefault(_name, _seconds)
