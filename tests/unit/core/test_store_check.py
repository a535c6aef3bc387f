"""Check of Milvus: rarely asked, one at a time, and anew after a loss."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest

from core import store_check
from core.errors import StoreUnavailable, StoreUnknown
from core.store_check import StoreCheck


class FakeStore:
    """A Milvus with these marks, which counts how often it is asked for them."""

    address = "http://milvus"
    rebuilt_if_empty = False

    def __init__(self, *marks: str) -> None:
        self.found = set(marks)
        self.asked = 0
        self.on_ask: Callable[[], None] = lambda: None

    def marks(self) -> set[str]:
        self.asked += 1
        self.on_ask()
        return set(self.found)

    def has_collection(self, _name: str) -> bool:
        return False

    def set_mark(self, store_id: str) -> None:
        self.found.add(store_id)


class FakeLedger:
    """A ledger that speaks of the store "ours"."""

    settled = True

    def store_id(self) -> str:
        return "ours"

    make_store_id = store_id

    def has_settled(self) -> bool:
        return self.settled

    def versions(self) -> list[Any]:
        return []


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(store_check, "time", clock)
    return clock


def check_of(store: Any, settled: bool = True) -> StoreCheck:
    ledger: Any = FakeLedger()
    ledger.settled = settled
    return StoreCheck(store, ledger)


def is_known(check: StoreCheck) -> bool:
    # A call, since a type checker takes a property to be what it was.
    return check.is_known


def test_a_known_store_is_asked_twice_a_minute(clock: Clock) -> None:
    store = FakeStore("ours")
    check = check_of(store)
    assert not is_known(check)
    for _ in range(60):
        check.require()
        check.take()
        assert is_known(check)
        clock.now += 1
    assert store.asked == 2


def test_a_refusal_is_remembered_for_a_moment(clock: Clock) -> None:
    store = FakeStore("theirs")
    check = check_of(store)
    for _ in range(5):
        with pytest.raises(StoreUnknown):
            check.require()
    assert store.asked == 1
    store.found = {"ours"}
    clock.now += 2
    check.require()
    assert is_known(check)


def test_a_new_store_is_remembered_for_a_moment_and_taken_at_once(clock: Clock) -> None:
    store = FakeStore()
    check = check_of(store, settled=False)
    for _ in range(5):
        check.require()
    assert store.asked == 1
    assert not is_known(check)
    clock.now += 0.1
    check.take()
    assert is_known(check)
    assert store.found == {"ours"}


def test_an_outage_is_not_remembered(clock: Clock) -> None:
    def fail() -> None:
        raise StoreUnavailable("down")

    store = FakeStore("ours")
    check = check_of(store)
    store.on_ask = fail
    with pytest.raises(StoreUnavailable, match="down"):
        check.require()
    store.on_ask = lambda: None
    check.require()
    assert is_known(check)


@pytest.mark.parametrize("marks", [("ours",), ("theirs",)])
def test_who_asks_at_once_shares_one_look(marks: tuple[str, ...], clock: Clock) -> None:
    store = FakeStore(*marks)
    looking, go_on = Event(), Event()

    def held() -> None:
        looking.set()
        assert go_on.wait(60)

    store.on_ask = held
    check = check_of(store)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(check.require) for _ in range(8)]
        assert looking.wait(60)
        go_on.set()
        refused = [each for each in asked if isinstance(each.exception(60), StoreUnknown)]
    assert store.asked == 1
    assert len(refused) == (0 if marks == ("ours",) else 8)


def test_a_look_that_began_before_a_loss_says_nothing_after_it(clock: Clock) -> None:
    store = FakeStore("ours")
    check = check_of(store)
    store.on_ask = check.look_again
    check.require()
    assert not is_known(check)
    store.on_ask = lambda: None
    check.require()
    assert is_known(check)
    assert store.asked == 2
    check.look_again()
    assert not is_known(check)
