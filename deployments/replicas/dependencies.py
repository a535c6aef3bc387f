"""Waiting for what a replica needs before it can start: its database, or weights that are still being brought."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from core.errors import Unavailable

WAIT_S = 120.0
"""How long one replica waits before it fails with the reason, which Serve then shows as its application's status."""
_PAUSE_S = 2.0
logger = logging.getLogger(__name__)
Result = TypeVar("Result")


def wait_for(attempt: Callable[[], Result]) -> Result:
    """Repeat an attempt while it raises `Unavailable`; returns its result. For constructors of replicas.

    Serve gives up an application whose constructors fail a few times, and KubeRay does not submit it again. While a
    constructor waits, the application is `DEPLOYING`, and the log says for what.

    Raises:
        Unavailable: it still is, after `WAIT_S`. Serve starts the replica again.
    """
    deadline, said = time.monotonic() + WAIT_S, ""
    while True:
        try:
            result = attempt()
        except Unavailable as error:
            if time.monotonic() + _PAUSE_S >= deadline:
                raise
            if error.message != said:
                logger.warning("waiting before this replica starts: %s", error.message)
                said = error.message
        else:
            if said:
                logger.info("what this replica waited for is there")
            return result
        time.sleep(_PAUSE_S)
