"""Background queue: work is done in order, and a failure ends nothing else."""

import threading
import time
from collections.abc import Callable

import pytest

from deployments.observability.metrics import do_now, later

PATIENCE_S = 60.0


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, "it did not become so"
        time.sleep(0.01)


def test_it_is_done_by_another_thread_a_moment_later_in_order() -> None:
    done, by, numbers = threading.Event(), set[int](), list[int]()
    for number in range(5):
        later(numbers.append, number)
    later(lambda: by.add(threading.get_ident()))
    later(done.set)
    wait_until(done.is_set)
    assert numbers == [0, 1, 2, 3, 4]
    assert by != {threading.get_ident()}


def test_failures_share_a_line_and_what_comes_after_them_is_done(caplog: pytest.LogCaptureFixture) -> None:
    done = threading.Event()
    for number in range(100):
        later({}.__getitem__, f"no key {number}")
    later(done.set)
    wait_until(done.is_set)
    # The line is written when all is done.
    wait_until(lambda: "no key 0" in caplog.text)
    # A round may begin while they are left for later, so there may be two.
    assert caplog.text.count("what was left for later failed") <= 2


def test_who_wants_it_now_need_not_wait_and_finds_all_done() -> None:
    slow, numbers = threading.Event(), list[int]()
    later(lambda: (slow.set(), time.sleep(0.05)))
    later(numbers.append, 1)
    # The other thread may have begun, or not: all is done either way.
    slow.wait(0.3)
    do_now()
    assert numbers == [1]
