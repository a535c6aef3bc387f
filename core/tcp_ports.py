"""TCP ports of this machine for services that start later, which no two processes are given."""

import random
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress

from core.errors import Unavailable

PORTS_A_BLOCK = 100
# Below what the system itself hands out: of those, any connection may take one before its listener starts.
_ROWS = range(10_000, 22_000, PORTS_A_BLOCK)
_SINGLES = range(22_000, 32_000, PORTS_A_BLOCK)
_left: Iterator[int] = iter(())


def free_ports() -> range:
    """Find `PORTS_A_BLOCK` TCP ports in a row that nothing listens on and no other process has been given.

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
        ports = range(start, start + PORTS_A_BLOCK)
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
        # It is held by its descriptor, until the process ends.
        lock.detach()
        return True
    lock.close()
    return False


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
