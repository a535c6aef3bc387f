"""Images are written while their product changes: whoever takes turns, nothing is lost and nothing stays."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import combinations, count
from threading import Semaphore, Thread
from typing import Any

import numpy as np
import pytest

from catalog.ledger import SqlLedger
from catalog.opening import Catalog
from catalog.products import DeleteProduct, SqlProducts, StoredProduct
from core.index_rows import IndexRows
from core.ports import Ledger
from core.store_check import StoreCheck
from core.types import EncoderInfo, IndexItem, Removal, VectorRow
from milvus.memory import MemoryStore
from tests.support.catalog_fixtures import RED, encoder

INFO: EncoderInfo = encoder("fake")
START = datetime(2026, 3, 1, tzinfo=UTC)
WRITER_STEPS, REMOVER_STEPS = 4, 5
"""Calls to ledger and store that take turns; whatever comes after them, each does at once."""


class Stopped(BaseException):
    """The process has ended where it stood."""


class Actor:
    """Runs work in a thread of its own and stops before each call of a port until it has its turn.

    `wrap` returns a port whose calls take turns, and `wait` stops until it is this one's turn.
    """

    def __init__(self, work: Callable[["Actor"], None]) -> None:
        self._turn, self._halted = Semaphore(0), Semaphore(0)
        self._killed = self.done = False
        self.failed: BaseException | None = None
        self._thread = Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()
        assert self._halted.acquire(timeout=60)

    def step(self) -> None:
        """Let it go on to the next call."""
        if not self.done:
            self._turn.release()
            assert self._halted.acquire(timeout=60)

    def kill(self) -> None:
        """End it where it stands."""
        self._killed = True
        self.step()
        self._thread.join(60)

    def finish(self) -> None:
        """Let it go on to its end."""
        while not self.done:
            self.step()
        self._thread.join(60)
        if self.failed is not None:
            raise self.failed

    def wrap(self, port: Any) -> Any:
        return _Turns(self, port)

    def wait(self) -> None:
        self._halted.release()
        assert self._turn.acquire(timeout=60)
        if self._killed:
            raise Stopped

    def _run(self, work: Callable[["Actor"], None]) -> None:
        try:
            with suppress(Stopped):
                work(self)
        except BaseException as error:
            self.failed = error
        self.done = True
        self._halted.release()


class _Turns:
    def __init__(self, actor: Actor, port: Any) -> None:
        self._actor, self._port = actor, port

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._port, name)

        def in_turn(*args: Any, **options: Any) -> Any:
            self._actor.wait()
            return call(*args, **options)

        return in_turn


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    store.ensure_collection(INFO.collection, INFO.dimension)
    return store


def schedules() -> Iterator[tuple[str, int | None]]:
    """Every order of turns of writer (w) and remover (r), and after how many steps the writer is killed."""
    for killed_after in [None, *range(WRITER_STEPS)]:
        steps = WRITER_STEPS if killed_after is None else killed_after
        for removals in combinations(range(steps + REMOVER_STEPS), REMOVER_STEPS):
            turns = ("r" if turn in removals else "w" for turn in range(steps + REMOVER_STEPS))
            yield "".join(turns), killed_after


def write(rows: IndexRows, ledger: Ledger, items: Sequence[IndexItem]) -> None:
    """What the service and its jobs do with images that they found to be missing."""
    vector = np.zeros(INFO.dimension, np.float32)
    vector[0] = 1
    ledger.open(INFO.collection, items)
    rows.write(INFO, [VectorRow(item, vector) for item in items])


@pytest.mark.parametrize(
    ("remover", "change"),
    [("the gateway", "deleted"), ("the repair", "other attributes"), ("the gateway", "none")],
)
def test_in_every_order_of_writing_and_removing_the_collection_becomes_what_the_catalog_is(
    remover: str, change: str, catalog: Catalog, store: MemoryStore
) -> None:
    # A clock that no stalled machine moves beyond the grace.
    ticks = count()
    clock = lambda: START + timedelta(microseconds=next(ticks))  # noqa: E731
    ledger = SqlLedger(catalog.engine, clock)
    products = SqlProducts(catalog.engine, catalog.blobs, clock)
    # Known for good, and asked without taking a turn: here it is about rows.
    check = StoreCheck(store, ledger)
    bare = IndexRows(store, ledger, check)
    for turns, killed_after in schedules():
        products.put("p", "", "", {}, [RED])
        items = ledger.items("p")

        def writing(actor: Actor, items: Sequence[IndexItem] = items) -> None:
            actors_ledger = actor.wrap(ledger)
            write(IndexRows(actor.wrap(store), actors_ledger, check), actors_ledger, items)

        def removing(actor: Actor, items: Sequence[IndexItem] = items) -> None:
            actor.wait()
            rows = IndexRows(actor.wrap(store), actor.wrap(ledger), check)
            if change == "deleted":
                (stored,) = products.write([DeleteProduct("p")])
                assert isinstance(stored, StoredProduct)
                keys = stored.work.obsolete.get(INFO.collection, [])
                rows.complete(INFO.collection, Removal(keys, stored.work.begun_at))
            elif change == "other attributes":
                products.put("p", "", "", {"color": "blue"}, None)
            if remover == "the gateway":
                rows.remove(INFO.collection, [item.key for item in items])
            else:
                rows.remove_obsolete(INFO.collection, grace_s=60)

        actors = {"w": Actor(writing), "r": Actor(removing)}
        for turn in turns:
            actors[turn].step()
        if killed_after is not None:
            actors["w"].kill()
        for actor in actors.values():
            actor.finish()
        moment = f"{turns}, killed after {killed_after} steps"
        if killed_after is None:
            assert ledger.obsolete(INFO.collection, 10) == [], moment
        bare.remove_obsolete(INFO.collection)
        write(bare, ledger, ledger.missing(INFO.collection, 10))
        # What waited for its successor.
        bare.remove_obsolete(INFO.collection)
        wanted = {item.key for item in ledger.items("p")}
        assert set(store.keys(INFO.collection)) == wanted, moment
        assert ledger.indexed(INFO.collection, sorted(wanted)) == wanted, moment
        if wanted:
            products.delete("p")
        bare.remove_obsolete(INFO.collection)
