"""What may wait until a request is answered: a thread does it a moment later, for all requests at once.

To tell Ray of one value takes 25 to 60 µs in a replica that has just woken up, and ten times less in a row.
A search tells a dozen.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)

EVERY_S = 0.25

_waiting: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
_start_once = threading.Lock()
_in_turn = threading.Lock()


def later(act: Callable[..., object], *arguments: Any) -> None:
    """Call `act` within about `EVERY_S`, in the order of these calls; what waits when the process ends is lost."""
    _waiting.append((act, arguments))
    if _start_once.acquire(blocking=False):
        threading.Thread(target=_run, name="later", daemon=True).start()


def do_now() -> None:
    """Do what waits, in this thread; raises what an act raises, and leaves what comes after it waiting."""
    with _in_turn:
        while _waiting:
            act, arguments = _waiting.popleft()
            act(*arguments)


def _run() -> None:
    while True:
        time.sleep(EVERY_S)
        try:
            do_now()
        except Exception:
            logger.exception("what was left for later failed")
