"""Images are written while their product changes: whoever takes turns, nothing is lost and nothing stays."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import combinations, count
from threading import Semaphore, Thread
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event

from catalog.ledger import SqlLedger
from catalog.opening import Catalog
from catalog.products import (
    DeleteProduct,
    Operation,
    PatchProduct,
    PutProduct,
    SqlProducts,
    StoredProduct,
)
from core.index_rows import IndexRows
from core.ports import Ledger, VectorStore
from core.store_check import StoreCheck
from core.types import EncoderInfo, IndexItem, IndexWork, Removal, Vector, VectorRow
from milvus.memory import MemoryStore
from tests.support.catalog_fixtures import BLUE, RED, encoder

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


def schedules(writes: int = WRITER_STEPS, removals: int = REMOVER_STEPS) -> Iterator[tuple[str, int | None]]:
    """Every order of turns of writer (w) and remover (r), and after how many steps the writer is killed."""
    for killed_after in [None, *range(writes)]:
        steps = writes if killed_after is None else killed_after
        for turns_of_remover in combinations(range(steps + removals), removals):
            turns = ("r" if turn in turns_of_remover else "w" for turn in range(steps + removals))
            yield "".join(turns), killed_after


def unit() -> Vector:
    vector = np.zeros(INFO.dimension, np.float32)
    vector[0] = 1
    return vector


def write(rows: IndexRows, ledger: Ledger, items: Sequence[IndexItem]) -> None:
    """What the service and its jobs do with images that they found to be missing."""
    ledger.open(INFO.collection, items)
    rows.upsert(INFO, [VectorRow(item, unit()) for item in items])
    rows.settle({INFO.collection: items})


@pytest.fixture
def quick(catalog: Catalog) -> tuple[SqlLedger, SqlProducts]:
    """A ledger and products that need not survive a power cut, by a clock that no stalled machine moves."""

    def spare_the_disk(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    event.listen(catalog.engine, "connect", spare_the_disk)
    catalog.engine.dispose()
    ticks = count()

    def clock() -> datetime:
        return START + timedelta(microseconds=next(ticks))

    return SqlLedger(catalog.engine, clock), SqlProducts(catalog.engine, catalog.blobs, clock)


@pytest.mark.parametrize("change", ["deleted", "other attributes", "none"])
def test_in_every_order_of_writing_and_repairing_the_collection_becomes_what_the_catalog_is(
    change: str, quick: tuple[SqlLedger, SqlProducts], store: MemoryStore
) -> None:
    ledger, products = quick
    # Known for good, and asked without taking a turn: here it is about rows.
    check = StoreCheck(store, ledger)
    bare = IndexRows(store, ledger, check)
    for turns, killed_after in schedules():
        products.put("p", "", "", {}, [RED])
        items = ledger.items("p")

        def writing(actor: Actor, items: Sequence[IndexItem] = items) -> None:
            actors_ledger = actor.wrap(ledger)
            write(IndexRows(actor.wrap(store), actors_ledger, check), actors_ledger, items)

        def removing(actor: Actor) -> None:
            actor.wait()
            if change == "deleted":
                products.delete("p")
            elif change == "other attributes":
                products.put("p", "", "", {"color": "blue"}, None)
            rows = IndexRows(actor.wrap(store), actor.wrap(ledger), check)
            rows.remove_obsolete(INFO.collection, grace_s=60)

        actors = {"w": Actor(writing), "r": Actor(removing)}
        for turn in turns:
            actors[turn].step()
        if killed_after is not None:
            actors["w"].kill()
        for actor in actors.values():
            actor.finish()
        moment = f"{turns}, killed after {killed_after} steps"
        write(bare, ledger, ledger.missing(INFO.collection, 10))
        bare.remove_obsolete(INFO.collection)
        wanted = {item.key for item in ledger.items("p")}
        assert set(store.keys(INFO.collection)) == wanted, moment
        assert ledger.indexed(INFO.collection, sorted(wanted)) == wanted, moment
        if wanted:
            products.delete("p")
        bare.remove_obsolete(INFO.collection)


CHANGES: dict[str, Operation] = {
    "deleted": DeleteProduct("p"),
    "other attributes": PatchProduct("p", {"attributes": {"color": "blue"}}),
    "another image": PutProduct("p", "", "", {}, [BLUE]),
}


def index(rows: IndexRows, store: VectorStore, work: IndexWork) -> None:
    """What the service does after a write has opened its rows."""
    items, obsolete = work.missing.get(INFO.collection, ()), work.obsolete.get(INFO.collection, ())
    if obsolete:
        store.fetch(INFO.collection, obsolete)
    rows.upsert(INFO, [VectorRow(item, unit()) for item in items])
    rows.settle({INFO.collection: items})
    if obsolete:
        rows.finish([(INFO.collection, Removal(obsolete, work.begun_at))])


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("killed", ["the first writer", "the second writer"])
def test_in_every_order_of_two_writes_the_collection_becomes_what_the_catalog_is(
    change: str, killed: str, quick: tuple[SqlLedger, SqlProducts], store: MemoryStore
) -> None:
    ledger, products = quick
    ledger.register(INFO)
    check = StoreCheck(store, ledger)
    bare = IndexRows(store, ledger, check)
    check.take()

    def written(operation: Operation) -> IndexWork:
        (stored,) = products.write([operation])
        assert isinstance(stored, StoredProduct)
        return stored.work

    def indexing(actor: Actor, work: IndexWork) -> None:
        index(IndexRows(actor.wrap(store), actor.wrap(ledger), check), actor.wrap(store), work)

    killed_first = killed == "the first writer"
    for turns, killed_after in schedules(4, 5):
        if killed_after is None and not killed_first:
            # Nobody is killed: these orders are among those of the other half of this test.
            continue
        first_work = written(PutProduct("p", "", "", {}, [RED]))

        def first(actor: Actor, work: IndexWork = first_work) -> None:
            indexing(actor, work)

        def second(actor: Actor) -> None:
            actor.wait()
            indexing(actor, written(CHANGES[change]))

        # The turns of the one that is killed are `w`.
        actors = {"w" if killed_first else "r": Actor(first), "r" if killed_first else "w": Actor(second)}
        for turn in turns:
            actors[turn].step()
        if killed_after is not None:
            actors["w"].kill()
        for actor in actors.values():
            actor.finish()
        moment = f"{turns}, killed after {killed_after} steps"
        wanted = {item.key for item in ledger.items("p")}
        if killed_after is None:
            assert set(store.keys(INFO.collection)) == wanted, moment
            assert ledger.obsolete(INFO.collection, 10) == [], moment
        write(bare, ledger, ledger.missing(INFO.collection, 10))
        bare.remove_obsolete(INFO.collection)
        wanted = {item.key for item in ledger.items("p")}
        assert set(store.keys(INFO.collection)) == wanted, moment
        assert ledger.indexed(INFO.collection, sorted(wanted)) == wanted, moment
        if wanted:
            products.delete("p")
        bare.remove_obsolete(INFO.collection)
