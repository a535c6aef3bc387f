"""Batches of calls to encoders, and the weighted semaphore."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import batching as module
from core.batching import batched_by_bytes
from core.concurrency import WeightedSemaphore
from core.errors import Overloaded


@given(st.lists(st.integers(0, 30), max_size=60))
def test_batches_keep_order_and_limits(sizes: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_ENCODE_BYTES", 20)
        patch.setattr(module, "MAX_ENCODE_INPUTS", 4)
        cut = list(batched_by_bytes(sizes, lambda size: size))
    assert [size for batch in cut for size in batch] == sizes
    assert all(len(batch) <= 4 and (sum(batch) <= 20 or len(batch) == 1) for batch in cut)


def waiting(semaphore: WeightedSemaphore, count: int) -> None:
    """Return as soon as so many threads wait for room."""
    ends_at = time.monotonic() + 30
    while len(semaphore._waiting) < count:
        assert time.monotonic() < ends_at
        time.sleep(0.001)


def test_what_is_held_together_never_exceeds_the_limit() -> None:
    semaphore, lock = WeightedSemaphore(), threading.Lock()
    held, most = [0], [0]

    def work(weight: int) -> None:
        with semaphore.holding(weight, 10):
            with lock:
                held[0] += weight
                most[0] = max(most[0], held[0])
            time.sleep(0.001)
            with lock:
                held[0] -= weight

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, [1, 7, 4, 10, 3, 2, 9, 5] * 8))
    assert held == [0]
    assert 0 < most[0] <= 10


def test_a_heavy_one_is_let_in_before_light_ones_that_come_after_it() -> None:
    semaphore, order = WeightedSemaphore(), list[str]()

    def work(name: str, weight: int) -> None:
        with semaphore.holding(weight, 10):
            order.append(name)

    with ThreadPoolExecutor(3) as pool:
        with semaphore.holding(1, 10):
            heavy = pool.submit(work, "heavy", 10)
            waiting(semaphore, 1)
            light = pool.submit(work, "light", 1)
            waiting(semaphore, 2)
        heavy.result(30), light.result(30)
    assert order == ["heavy", "light"]


def test_what_exceeds_the_limit_alone_runs_alone() -> None:
    semaphore = WeightedSemaphore()
    with (
        semaphore.holding(100, 10),
        pytest.raises(Overloaded),
        semaphore.holding(1, 10, until=time.monotonic()),
    ):
        pass
    with semaphore.holding(10, 10, until=time.monotonic()):
        pass


def test_one_that_gives_up_lets_those_behind_it_pass() -> None:
    semaphore = WeightedSemaphore()
    with ThreadPoolExecutor(2) as pool, semaphore.holding(5, 10):

        def light() -> bool:
            with semaphore.holding(1, 10):
                return True

        def heavy() -> None:
            with semaphore.holding(10, 10, until=time.monotonic() + 0.2):
                pass

        given_up = pool.submit(heavy)
        waiting(semaphore, 1)
        behind = pool.submit(light)
        with pytest.raises(Overloaded):
            given_up.result(30)
        assert behind.result(30)


def test_an_error_gives_its_weight_back() -> None:
    semaphore = WeightedSemaphore()
    with pytest.raises(ZeroDivisionError), semaphore.holding(10, 10):
        raise ZeroDivisionError
    with semaphore.holding(10, 10, until=time.monotonic()):
        pass
