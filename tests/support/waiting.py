"""Waiting for what comes about in other processes and threads."""

import time
from collections.abc import Callable


def wait_until(
    condition: Callable[[], object],
    within_s: float,
    what: Callable[[], object] | str = "",
    pause_s: float = 0.1,
) -> None:
    """Return once a condition holds; where it does not in time, the test fails and shows `what`."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, what() if callable(what) else what
        time.sleep(pause_s)
