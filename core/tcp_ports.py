"""TCP ports of this machine for services that start soon; no two processes get the same."""

import random
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress

from core.errors import Unavailable

PORTS_A_BLOCK = 100
# Below the ports that the system assigns to connections, which could take one before its listener starts.
_BLOCKS = range(10_000, 32_000, PORTS_A_BLOCK)
_left: Iterator[int] = iter(())


def free_ports() -> range:
    """Reserve `PORTS_A_BLOCK` consecutive TCP ports on which nothing listens, for the lifetime of this process.

    Raises:
        Unavailable: there are no more.
    """
    for start in random.sample(_BLOCKS, len(_BLOCKS)):
        ports = range(start, start + PORTS_A_BLOCK)
        if _hold(start) and all(_is_free(port) for port in ports):
            return ports
    raise Unavailable("no ports are free for a service on this machine")


def free_port() -> int:
    """Reserve a TCP port on which nothing listens.

    Raises:
        Unavailable: there are no more.
    """
    global _left
    while True:
        for port in _left:
            if _is_free(port):
                return port
        _left = iter(free_ports())


def _hold(start: int) -> bool:
    """Try to lock a block, by the name of an abstract socket; returns whether it is ours.

    Such a lock leaves no file and ends with its process. Only Linux has it; elsewhere two processes get the same
    block if they draw it at the same moment.
    """
    if sys.platform != "linux":
        return True
    lock = socket.socket(socket.AF_UNIX)
    with suppress(OSError):
        lock.bind(f"\0vitrine-ports-{start}")
        # The descriptor holds the lock until the process ends.
        lock.detach()
        return True
    lock.close()
    return False


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
