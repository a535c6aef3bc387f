"""Limits: the token bucket against the plain definition of one, and how many searches are admitted at once."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import Response

from core.errors import RateLimited
from deployments.http.auth import RateLimiter
from deployments.http.middleware import (
    FIRST_SEARCHES,
    FORGET_S,
    LEAST_SEARCHES,
    SEARCHES_A_ROUND,
    Admission,
    Entry,
    SearchLimit,
)


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


SLOWDOWN = 2.0


class Replica:
    """Works on one search after another, each for `each_s`, and waits `away_s` for another process besides."""

    def __init__(self, each_s: float, away_s: float = 0.0, most: int = 64) -> None:
        self.limit = SearchLimit(SLOWDOWN, most, lambda: self.now)
        self.each_s = each_s
        self.away_s = away_s
        self.now = 0.0
        self.times_s: list[float] = []

    def alone(self, answers: int) -> None:
        """Let one caller search again and again."""
        for _ in range(answers):
            entry = self.limit.enter()
            assert entry is not None
            self.now += self.each_s + self.away_s
            self.limit.leave(entry)

    def crowd(self, callers: int, answers: int) -> int:
        """Let so many callers ask again and again; returns how often one was refused."""
        refused, in_work = 0, list[Entry]()
        for _ in range(answers):
            while len(in_work) < callers:
                entry = self.limit.enter()
                if entry is None:
                    refused += 1
                    break
                in_work.append(entry)
            first = in_work.pop(0)
            self.now = max(self.now + self.each_s, first.began + self.each_s + self.away_s)
            self.times_s.append(self.now - first.began)
            self.limit.leave(first)
        for entry in in_work:
            self.limit.leave(entry)
        return refused


def test_too_many_searches_are_cut_to_what_takes_little_longer_than_one_alone() -> None:
    busy = Replica(each_s=0.01, away_s=0.02)
    busy.alone(SEARCHES_A_ROUND)
    assert busy.crowd(callers=50, answers=500) > 0
    recent = busy.times_s[-100:]
    assert 1.3 < sum(recent) / len(recent) / 0.03 < 1.2 * SLOWDOWN


def test_a_replica_that_works_side_by_side_takes_ever_more_up_to_the_bound() -> None:
    wide = Replica(each_s=0.0001, away_s=0.05, most=40)
    wide.alone(SEARCHES_A_ROUND)
    wide.crowd(callers=100, answers=60 * SEARCHES_A_ROUND)
    assert wide.limit.limit == 40


def test_slow_searches_that_are_few_refuse_nobody() -> None:
    slow = Replica(each_s=0.5)
    slow.alone(SEARCHES_A_ROUND)
    assert slow.crowd(callers=FIRST_SEARCHES // 2, answers=10 * SEARCHES_A_ROUND) == 0
    assert slow.limit.limit == FIRST_SEARCHES


def test_searches_that_become_slower_for_good_are_cut_until_the_new_time_is_learned() -> None:
    wide = Replica(each_s=0.0001, away_s=0.01)
    wide.alone(SEARCHES_A_ROUND)
    wide.away_s = 1.0
    wide.crowd(callers=50, answers=5 * SEARCHES_A_ROUND)
    assert wide.limit.limit == LEAST_SEARCHES
    wide.crowd(callers=50, answers=60 * SEARCHES_A_ROUND)
    assert wide.limit.limit > FIRST_SEARCHES


def test_nothing_is_cut_before_it_is_known_how_long_one_alone_takes() -> None:
    new = Replica(each_s=0.01)
    new.crowd(callers=50, answers=20 * SEARCHES_A_ROUND)
    assert new.limit.limit == FIRST_SEARCHES


def test_one_slow_search_alone_does_not_stretch_what_is_allowed() -> None:
    cold = Replica(each_s=3.0)
    cold.alone(1)
    cold.each_s = 0.01
    cold.alone(2 * SEARCHES_A_ROUND)
    cold.crowd(callers=50, answers=20 * SEARCHES_A_ROUND)
    assert cold.limit.limit < 5


def test_what_was_learned_is_forgotten_after_a_quiet_while() -> None:
    busy = Replica(each_s=0.01)
    busy.alone(SEARCHES_A_ROUND)
    busy.crowd(callers=50, answers=500)
    assert busy.limit.limit < FIRST_SEARCHES
    busy.now += FORGET_S + 1
    assert busy.crowd(callers=FIRST_SEARCHES, answers=1) == 0


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("status", "counts"), [(200, True), (401, False), (422, False), (429, False), (503, False)]
)
async def test_only_the_time_of_a_search_that_was_answered_counts(status: int, counts: bool) -> None:
    async def nothing(*_: object) -> Any:
        return None

    admission = Admission(Response(status_code=status), max_in_flight=64, search_slowdown=SLOWDOWN)
    counted: list[bool] = []
    leave = admission._searches.leave
    admission._searches.leave = lambda entry, answered: counted.append(answered) or leave(entry, answered)
    for _ in range(2 * FIRST_SEARCHES):
        await admission({"type": "http", "path": "/v1/search", "headers": []}, nothing, nothing)
    assert counted == [counts] * 2 * FIRST_SEARCHES


def test_refused_searches_leave_the_limit_as_it_was() -> None:
    attacked = Replica(each_s=0.01)
    attacked.alone(SEARCHES_A_ROUND)
    for _ in range(100):
        entry = attacked.limit.enter()
        assert entry is not None
        attacked.now += 0.0001
        attacked.limit.leave(entry, answered=False)
    attacked.crowd(callers=2, answers=10 * SEARCHES_A_ROUND)
    assert attacked.limit.limit == FIRST_SEARCHES


def test_searches_that_all_end_at_their_deadline_shrink_the_limit() -> None:
    overloaded = Replica(each_s=0.01)
    overloaded.alone(SEARCHES_A_ROUND)
    for _ in range(10):
        entries = [entry for _ in range(50) if (entry := overloaded.limit.enter()) is not None]
        overloaded.now += 30.0
        for entry in entries:
            overloaded.limit.leave(entry, answered=False)
    assert overloaded.limit.limit == LEAST_SEARCHES
    overloaded.crowd(callers=1, answers=10 * SEARCHES_A_ROUND)
    assert overloaded.limit.limit > LEAST_SEARCHES


def test_the_first_limit_keeps_within_the_bound_of_all_requests() -> None:
    small = Replica(each_s=0.01, most=2)
    assert [small.limit.enter() is not None for _ in range(3)] == [True, True, False]
