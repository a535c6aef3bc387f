"""The token bucket, against the plain definition of one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import RateLimited
from deployments.http.auth import RateLimiter


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def takes(limiter: RateLimiter, key: str, rate: float, burst: int) -> bool:
    try:
        limiter.take(key, rate, burst)
    except RateLimited:
        return False
    return True


@given(st.lists(st.integers(0, 12), max_size=60), st.integers(1, 4), st.integers(1, 6))
def test_it_takes_what_a_bucket_of_tokens_would(pauses: list[int], rate: int, burst: int) -> None:
    clock = Clock()
    limiter = RateLimiter(clock)
    # In quarters of a token, so that the oracle counts in whole numbers.
    tokens = burst * 4
    for pause in pauses:
        clock.now += pause / 4
        tokens = min(burst * 4, tokens + pause * rate)
        taken = takes(limiter, "a", rate, burst)
        assert taken == (tokens >= 4)
        tokens -= 4 if taken else 0


def test_it_says_when_the_next_token_is_there() -> None:
    clock = Clock()
    limiter = RateLimiter(clock)
    assert [takes(limiter, "a", 0.5, 2) for _ in range(3)] == [True, True, False]
    with pytest.raises(RateLimited) as refused:
        limiter.take("a", 0.5, 2)
    assert refused.value.retry_after_s == pytest.approx(2.0)
    clock.now += refused.value.retry_after_s
    assert takes(limiter, "a", 0.5, 2)


def test_each_key_has_a_bucket_of_its_own() -> None:
    limiter = RateLimiter(Clock())
    assert [takes(limiter, key, 1, 1) for key in "aabb"] == [True, False, True, False]


def test_it_forgets_keys_whose_bucket_is_full() -> None:
    clock = Clock()
    limiter = RateLimiter(clock)
    for number in range(20_000):
        assert takes(limiter, str(number), 1, 5)
        clock.now += 0.01
    # A bucket is full again after a second, in which a hundred keys come.
    assert len(limiter) < 2000
    assert [takes(limiter, "last", 1, 2) for _ in range(3)] == [True, True, False]
    for number in range(20_000):
        takes(limiter, str(number), 1, 5)
    assert not takes(limiter, "last", 1, 2)
