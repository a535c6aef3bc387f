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
"""Taken by whoever starts the thread, and never given back."""
_in_turn = threading.Lock()


def later(act: Callable[..., object], *arguments: Any) -> None:
    """Call `act` within about `EVERY_S`, in the order of these calls; what waits when the process ends is lost."""
    _waiting.append((act, arguments))
    if _start_once.acquire(blocking=False):
        threading.Thread(target=_run, name="later", daemon=True).start()


def do_now() -> None:
    """Do what waits, in this thread, and then raise what went wrong.

    Raises:
        ExceptionGroup: what acts have raised.
    """
    wrong: list[Exception] = []
    with _in_turn:
        while _waiting:
            act, arguments = _waiting.popleft()
            try:
                act(*arguments)
            except Exception as error:
                error.add_note(f"in {act!r} of {arguments!r}")
                wrong.append(error)
    if wrong:
        raise ExceptionGroup("not all that was left for later could be done", wrong)


def _run() -> None:
    while True:
        time.sleep(EVERY_S)
        try:
            do_now()
        except Exception:
            # One line for all of them, however many there are.
            logger.exception("what was left for later failed")
