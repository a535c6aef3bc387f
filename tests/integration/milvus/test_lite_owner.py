"""The owner of a Milvus Lite folder loses no acknowledged row, and clients come back by themselves."""

import itertools
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import NotFound, StoreUnavailable
from core.telemetry import answering
from milvus.config import MilvusConfig
from milvus.lite import LiteOwner
from milvus.store import MilvusStore
from tests.support.vector_stores import LiteProcess, row, unit, wait_for

FAR_TOO_LONG_S = 10.0
"""A call whose limit was not kept waits through the retries of pymilvus, which take minutes."""


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vitrine-lite-") as name:
        yield Path(name)


def owner_of(folder: Path, data: str = "data", socket: str = "m.sock", **options: Any) -> LiteOwner:
    return LiteOwner(folder / data, f"unix:{folder}/{socket}", **options)


def store_at(uri: str, timeout_s: float = 60) -> MilvusStore:
    return MilvusStore(MilvusConfig(uri=uri, timeout_s=timeout_s))


def started(owner: LiteProcess, timeout_s: float, max_file_bytes: int | None = None) -> MilvusStore:
    """Start the owner; returns a store with this time for a call, once it answers."""
    owner.start(max_file_bytes)
    store = store_at(owner.uri, timeout_s)
    wait_for(store, 60)
    return store


def fails_in_time(*calls: Callable[[], object]) -> None:
    for call in calls:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            call()
        assert time.monotonic() - began < FAR_TOO_LONG_S


def test_no_acknowledged_row_is_lost_in_kills_while_writing(lite_process: LiteProcess) -> None:
    outcome = _Outcome()
    for attempt in range(4):
        store = started(lite_process, 60)
        for name in ("one", "two"):
            store.ensure_collection(name, 8)
        stop = threading.Event()
        given = [(lite_process.uri, f"{attempt}-{n}", outcome, stop) for n in range(3)]
        writers = [threading.Thread(target=_write, args=each, daemon=True) for each in given]
        for writer in writers:
            writer.start()
        wanted = len(outcome.written) + 80
        deadline = time.monotonic() + 60
        while len(outcome.written) < wanted:
            assert time.monotonic() < deadline, f"{len(outcome.written)} of {wanted} rows after a minute"
            time.sleep(0.01)
        time.sleep(0.1 * attempt)
        stop.set()
        lite_process.kill()
        for writer in writers:
            writer.join()
    lite_process.start()
    found = {name: set(store.keys(name)) for name in ("one", "two")}
    kept = outcome.written - outcome.deleting
    assert len(kept) > 200
    for name in ("one", "two"):
        assert kept <= found[name]
        assert not outcome.deleted & found[name]
    key = max(kept)
    assert store.search_products("one", store.fetch("one", [key])[key], 1)[0].score == pytest.approx(1.0)


def test_a_call_fails_in_time_and_works_again_as_soon_as_the_owner_is_back(lite_process: LiteProcess) -> None:
    store = started(lite_process, 1.5)
    store.ensure_collection("one", 8)
    store.upsert("one", [row("a", unit(1))])
    lite_process.kill()
    fails_in_time(store.ping, lambda: store.search_products("one", unit(1), 1))
    waiting = threading.Thread(target=store_at(lite_process.uri).ping)
    waiting.start()
    time.sleep(1)
    lite_process.start()
    waiting.join()
    assert store.search_products("one", unit(1), 1)[0].image_id == "a"


def test_a_call_to_an_owner_that_hangs_fails_in_time(lite_process: LiteProcess) -> None:
    store = started(lite_process, 1)
    with lite_process.frozen():
        fails_in_time(store.ping, store_at(lite_process.uri, 1).ping)
    store.ping()


def test_a_failing_disk_ends_the_owner_and_nothing_acknowledged_is_lost(lite_process: LiteProcess) -> None:
    store = started(lite_process, 1, max_file_bytes=300_000)
    store.ensure_collection("one", 1024)
    vectors = np.random.default_rng(1).normal(size=(200, 10, 1024)).astype(np.float32)
    acknowledged: list[str] = []

    def write() -> None:
        for number, batch in enumerate(vectors):
            rows = [row(f"i{number}-{n}", vector) for n, vector in enumerate(batch)]
            store.upsert("one", rows)
            acknowledged.extend(each.item.key for each in rows)

    with pytest.raises(StoreUnavailable):
        write()
    assert lite_process.wait() == 1
    lite_process.start()
    wait_for(store, 60)
    assert acknowledged
    assert set(acknowledged) <= set(store.keys("one"))


def test_a_storage_error_in_the_regular_flush_ends_the_owner(lite_process: LiteProcess) -> None:
    store = started(lite_process, 60)
    store.ensure_collection("one", 8)
    files = lite_process.data / "collections" / "one" / "partitions"
    files.write_text("a file where the folder has to be")
    store.upsert("one", [row("a", unit(1))])
    assert lite_process.wait() == 1
    files.unlink()
    lite_process.start()
    assert list(store.keys("one")) == ["a:1"]


def test_a_folder_has_one_living_owner(folder: Path) -> None:
    first = owner_of(folder)
    first.start()
    with pytest.raises(StoreUnavailable, match="another process owns"):
        owner_of(folder, socket="other.sock").start()
    with pytest.raises(StoreUnavailable, match="another process listens"):
        owner_of(folder, data="other").start()
    assert first.healthy()
    first.stop()
    assert not first.healthy()
    assert not (folder / "m.sock").exists()


def test_an_owner_that_ends_leaves_the_next_one_its_socket(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = owner_of(folder), owner_of(folder)
    first.start()
    assert first._engine is not None
    close = first._engine.close

    def close_and_be_followed() -> None:
        close()
        second.start()

    monkeypatch.setattr(first._engine, "close", close_and_be_followed)
    first.stop()
    assert second.healthy()
    second.stop()


def test_an_owner_in_a_process_keeps_its_rows_over_a_restart(folder: Path) -> None:
    store = store_at(f"unix:{folder}/m.sock", 10)
    for number in range(3):
        owner = owner_of(folder)
        owner.start()
        store.ensure_collection("one", 8)
        store.set_alias("live", "one")
        store.upsert("one", [row(f"i{number}", unit(1, number))])
        store.delete("one", [f"i{number - 1}:1"])
        assert sorted(store.keys("one")) == [f"i{number}:1"]
        assert store.alias_target("live") == "one"
        owner.stop()


def test_every_call_is_logged_under_the_id_of_its_request(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="milvus.lite")

    def lines() -> list[dict[str, Any]]:
        return [vars(record) for record in caplog.records if record.name == "milvus.lite"]

    owner = owner_of(folder)
    owner.start()
    store = store_at(owner.address)
    store.ensure_collection("one", 8)
    assert lines() == [], "what is done for no request is for debugging"
    with answering("shop-17"):
        store.upsert("one", [row("a", unit(1))])
        store.search_products("one", unit(1), 1)
        with pytest.raises(NotFound):
            store.search_products("two", unit(1), 1)
    owner.stop()
    logged = lines()
    assert {each["request_id"] for each in logged} == {"shop-17"}
    assert {(each["call"], each["status"]) for each in logged} >= {("Upsert", "ok"), ("Search", "ok")}
    assert "error" in {each["status"] for each in logged}
    assert all(each["ms"] >= 0 for each in logged)


def test_a_few_rows_are_flushed_without_another_write(folder: Path) -> None:
    owner = owner_of(folder, flush_interval_s=0.01)
    owner.start()
    store = store_at(owner.address)
    store.ensure_collection("one", 8)
    for number in range(3):
        before, deadline = set(folder.rglob("*.parquet")), time.monotonic() + 60
        store.upsert("one", [row(f"i{number}", unit(1, number))])
        while not set(folder.rglob("*.parquet")) - before:
            assert time.monotonic() < deadline, "the row stays in memory"
            time.sleep(0.01)
    owner.stop()


def test_readers_miss_no_row_while_rows_are_flushed(folder: Path) -> None:
    owner = owner_of(folder, flush_rows=20, flush_interval_s=0.05)
    owner.start()
    writer, reader = store_at(owner.address), store_at(owner.address)
    writer.ensure_collection("one", 8)
    written: list[str] = []

    def write() -> None:
        for number in range(150):
            writer.upsert("one", [row(f"i{number}", unit(1, number), f"p{number}")])
            written.append(f"p{number}")

    thread = threading.Thread(target=write)
    thread.start()
    while thread.is_alive():
        expected = set(written)
        found = {hit.product_id for hit in reader.search_products("one", unit(1), 200)}
        assert expected <= found
    thread.join()
    owner.stop()


@dataclass
class _Outcome:
    """Keys by what was acknowledged; a deletion that was cut short may have happened or not."""

    written: set[str] = field(default_factory=set)
    deleting: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)


def _write(uri: str, name: str, outcome: _Outcome, stop: threading.Event) -> None:
    store = store_at(uri, 1)
    rng = np.random.default_rng(len(name))
    for batch in itertools.count():
        if stop.is_set():
            return
        rows = [row(f"{name}-{batch}-{n}", rng.normal(size=8).astype(np.float32)) for n in range(7)]
        # On a busy machine a call may take too long before the kill, too.
        with suppress(StoreUnavailable):
            for collection in ("one", "two"):
                store.upsert(collection, rows)
            outcome.written.update(each.item.key for each in rows)
            outcome.deleting.add(rows[0].item.key)
            for collection in ("one", "two"):
                store.delete(collection, [rows[0].item.key])
            outcome.deleted.add(rows[0].item.key)


def test_a_mark_outlives_a_kill_and_stands_in_no_way(lite_process: LiteProcess) -> None:
    store = started(lite_process, 60)
    store.set_mark(store_id := "0" * 32)
    store.ensure_collection("one", 8)
    lite_process.kill()
    lite_process.start()
    assert store.marks() == {store_id}
    store.upsert("one", [row("a", unit(1))])
    assert [found.name for found in store.collections()] == ["one"]
    store.close()
