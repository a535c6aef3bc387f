"""Files that a build has written are taken in by Milvus exactly once, however often and wherever it is killed."""

import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from core.config import BulkConfig, FileImportConfig
from core.errors import ConfigError, VitrineError
from core.index_rows import IndexRows
from core.ports import VectorStore
from core.types import EncoderInfo, IndexItem, VectorRow
from jobs.build.file_import import FileImports, Staging
from jobs.build.shard_indexer import ShardIndexer, ShardWork
from jobs.runner.context import JobContext
from jobs.upgrade.prune import forget_files
from milvus.bulk_import import ImportState, MilvusImports, RowFile, Rows, read_rows
from milvus.config import MilvusConfig
from milvus.memory import MemoryStore
from milvus.schema import encode_rows
from models.config import EncoderConfig
from models.encoder import load_encoder
from tests.support.catalog_fixtures import sqlite_in
from tests.support.upgrade_stage import Killed, Stage, job_settings, stage

INFO = EncoderInfo("bulk", "fake", "", "0123456789ab", 8, ("image",), "fp32", "cpu")
PRODUCTS = 7
A_FILE = 3


@dataclass
class FakeMilvus(MemoryStore):
    """Imports as a server does: rows are appended, whatever is there, and are counted once they are shown."""

    folder: Path = Path()
    tasks: dict[int, str] = field(default_factory=dict)
    looks_left: dict[int, int] = field(default_factory=dict)
    hidden: list[Rows] = field(default_factory=list)
    copies: Counter[str] = field(default_factory=Counter)
    refuses: str | None = None

    def __post_init__(self) -> None:
        super().__init__()

    def begin_import(self, collection: str, path: str) -> int:
        task = len(self.tasks) + 1
        self.tasks[task], self.looks_left[task] = path, 2
        return task

    def import_state(self, task: int) -> ImportState:
        self._work()
        return ImportState(not self.looks_left[task], self.refuses)

    def imports_under_way(self, collection: str) -> int:
        self._work()
        return sum(left > 0 for left in self.looks_left.values())

    def show_imported(self, collection: str) -> None:
        for rows in self.hidden:
            for row in rows:
                self._add(collection, row)
        self.hidden = []

    def count_rows(self, collection: str, keys: Sequence[str]) -> int:
        return sum(self.copies[key] for key in keys)

    def put(self, collection: str, rows: Rows) -> None:
        for row in rows:
            self.copies[row["key"]] = 0
            self._add(collection, row)

    def upsert(self, collection: str, rows: Sequence[VectorRow]) -> None:
        super().upsert(collection, rows)
        self.copies |= {row.item.key: 1 for row in rows}

    def delete(self, collection: str, keys: Sequence[str]) -> None:
        super().delete(collection, keys)
        self.copies -= Counter({key: self.copies[key] for key in keys})

    def _work(self) -> None:
        for task, left in self.looks_left.items():
            self.looks_left[task] = max(left - 1, 0)
            if left == 1 and self.refuses is None:
                with (self.folder / self.tasks[task]).open("rb") as file:
                    self.hidden += list(read_rows(file))

    def _add(self, collection: str, row: dict[str, Any]) -> None:
        item = IndexItem(row["image_id"], row["revision"], row["product_id"], "", {})
        super().upsert(collection, [VectorRow(item, row["embedding"])])
        self.copies[row["key"]] += 1


@dataclass
class Bench:
    shop: Stage
    config: FileImportConfig
    staging: Staging

    def items(self) -> list[IndexItem]:
        return [item for number in range(PRODUCTS) for item in self.shop.catalog.ledger.items(f"p{number}")]

    def rows(self) -> list[VectorRow]:
        vectors = np.random.default_rng(3).normal(size=(PRODUCTS, 8)).astype(np.float32)
        return [VectorRow(item, vector) for item, vector in zip(self.items(), vectors, strict=True)]

    def stage_all(self, folder: Path, store: VectorStore, info: EncoderInfo = INFO) -> None:
        """Do what the actors of a build do: announce rows, write them into files, put these there."""
        # The ledger of the stage speaks of a store of its own, with another collection.
        store.set_mark(self.shop.catalog.ledger.make_store_id())
        IndexRows(store, self.shop.catalog.ledger).prepare(info)
        rows = self.rows()
        for start in range(0, len(rows), A_FILE):
            some = rows[start : start + A_FILE]
            file = RowFile(folder / f"{start}.parquet", 8)
            self.shop.catalog.ledger.open(info.collection, [row.item for row in some])
            file.append(some)
            file.close()
            self.staging.put(file.path, f"{uuid.uuid4().hex}.parquet")

    def import_all(self, milvus: Any, store: VectorStore, info: EncoderInfo = INFO) -> int:
        with self.shop.job("build") as run:
            rows = IndexRows(store, self.shop.catalog.ledger)
            return FileImports(run, milvus, self.staging, rows, self.config, info.collection).import_all()

    def assert_in(self, milvus: FakeMilvus) -> None:
        expected = {item.key for item in self.items()}
        assert {key: count for key, count in milvus.copies.items() if count} == dict.fromkeys(expected, 1)
        counts = self.shop.catalog.ledger.counts(INFO.collection)
        assert (counts.indexed, counts.failed, counts.missing) == (PRODUCTS, 0, 0)
        assert self.staging.names() == []


@contextmanager
def a_bench(folder: Path, info: EncoderInfo = INFO) -> Iterator[Bench]:
    folder.mkdir(exist_ok=True)
    config = FileImportConfig(url=str(folder / "import"), milvus_path=f"{folder}/import", files_at_once=2)
    with stage(folder, PRODUCTS) as shop:
        yield Bench(shop, config, Staging(config, info.collection))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr("jobs.build.file_import._LOOK_S", 0.0)
    with a_bench(tmp_path / "bench") as made:
        yield made


def test_files_are_imported_and_only_then_in_the_ledger(bench: Bench, tmp_path: Path) -> None:
    milvus = FakeMilvus(folder=tmp_path)
    bench.stage_all(tmp_path, milvus)
    assert len(bench.staging.names()) == 3
    assert bench.shop.catalog.ledger.counts(INFO.collection).missing == PRODUCTS
    assert bench.import_all(milvus, milvus) == PRODUCTS
    bench.assert_in(milvus)
    assert len(milvus.tasks) == 3
    assert bench.import_all(milvus, milvus) == 0
    assert len(milvus.tasks) == 3


def test_what_milvus_refuses_is_reported_and_waits(bench: Bench, tmp_path: Path) -> None:
    milvus = FakeMilvus(folder=tmp_path, refuses="the disk is full")
    bench.stage_all(tmp_path, milvus)
    with pytest.raises(VitrineError, match="the disk is full"):
        bench.import_all(milvus, milvus)
    assert len(bench.staging.names()) == 3
    assert bench.shop.catalog.ledger.counts(INFO.collection).indexed == 0
    milvus.refuses = None
    assert bench.import_all(milvus, milvus) == PRODUCTS
    bench.assert_in(milvus)


def test_rows_that_others_wrote_meanwhile_are_there_once(bench: Bench, tmp_path: Path) -> None:
    milvus = FakeMilvus(folder=tmp_path)
    bench.stage_all(tmp_path, milvus)
    theirs = bench.rows()[3:5]
    IndexRows(milvus, bench.shop.catalog.ledger).upsert(INFO, theirs)
    bench.import_all(milvus, milvus)
    bench.assert_in(milvus)


def test_rows_of_images_that_went_meanwhile_go(bench: Bench, tmp_path: Path) -> None:
    milvus = FakeMilvus(folder=tmp_path)
    bench.stage_all(tmp_path, milvus)
    (gone,) = bench.shop.catalog.ledger.items("p3")
    bench.shop.catalog.products.delete("p3")
    IndexRows(milvus, bench.shop.catalog.ledger).remove_obsolete(INFO.collection)
    bench.import_all(milvus, milvus)
    assert gone.key not in set(milvus.keys(INFO.collection))
    assert bench.shop.catalog.ledger.counts(INFO.collection).indexed == PRODUCTS - 1


def test_a_file_that_was_cut_short_is_dropped_and_its_images_stay_missing(
    bench: Bench, tmp_path: Path
) -> None:
    milvus = FakeMilvus(folder=tmp_path)
    bench.stage_all(tmp_path, milvus)
    broken = next((tmp_path / "bench" / "import").rglob("*.parquet"))
    held = pq.read_table(broken).num_rows
    broken.write_bytes(broken.read_bytes()[:-9])
    assert bench.import_all(milvus, milvus) == PRODUCTS - held
    assert bench.staging.names() == []
    assert bench.shop.catalog.ledger.counts(INFO.collection).missing == held


def test_killed_anywhere_the_next_build_completes_it_without_a_duplicate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.build.file_import._LOOK_S", 0.0)
    survived = False
    for point in range(200):
        folder = tmp_path / str(point)
        with a_bench(folder) as bench:
            milvus = FakeMilvus(folder=folder)
            bench.stage_all(folder, milvus)
            calls = Counter[str]()

            class Dying:
                def __getattr__(
                    self, name: str, milvus: FakeMilvus = milvus, calls: Counter[str] = calls, at: int = point
                ) -> Any:
                    calls["all"] += 1
                    if calls["all"] > at:
                        raise Killed
                    return getattr(milvus, name)

            try:
                bench.import_all(Dying(), milvus)
                survived = True
            except Killed:
                pass
            bench.import_all(milvus, milvus)
            bench.assert_in(milvus)
        if survived:
            break
    assert survived
    assert point > 20


def test_a_range_becomes_a_file_of_what_an_upsert_sends(tmp_path: Path, lite_uri: str) -> None:
    encoder = EncoderConfig(name="fake", family="fake", checkpoint=uuid.uuid4().hex)
    info = load_encoder(encoder).info
    files = FileImportConfig(url=str(tmp_path / "import"), milvus_path="import")
    config = sqlite_in(tmp_path)
    work = ShardWork(config, MilvusConfig(uri=lite_uri), encoder, info, 4, 2, load_encoder, files)
    upserting = ShardWork(config, MilvusConfig(uri=lite_uri), encoder, info, 4, 2, load_encoder)
    store = MilvusImports(MilvusConfig(uri=lite_uri))
    with stage(tmp_path, PRODUCTS) as shop:
        store.set_mark(shop.catalog.ledger.make_store_id())
        result = ShardIndexer(work)({"first": "", "beyond": "g"})
        assert (result["indexed"], result["failed"], result["pending"]) == (PRODUCTS, 0, 0)
        assert shop.catalog.ledger.counts(info.collection).missing == PRODUCTS
        (name,) = Staging(files, info.collection).names()
        with Staging(files, info.collection).opened(name) as file:
            staged = {row["key"]: row for rows in read_rows(file) for row in rows}
        # The same images once more, now by upserts, and read back from Milvus.
        assert ShardIndexer(upserting)({"first": "", "beyond": "g"})["indexed"] == PRODUCTS
        items = [item for number in range(PRODUCTS) for item in shop.catalog.ledger.items(f"p{number}")]
        vectors = store.fetch(info.collection, [item.key for item in items])
    sent = encode_rows([VectorRow(item, vectors[item.key]) for item in items], info.dimension)
    assert set(staged) == {row["key"] for row in sent}
    for row in sent:
        assert np.allclose(staged[row["key"]].pop("embedding"), row.pop("embedding"), atol=1e-6)
        assert staged[row["key"]] == row
    with pytest.raises(ConfigError, match="Milvus Lite imports no files"):
        store.require_server()
    store.drop_collection(info.collection)
    store.close()


def test_files_for_a_collection_that_is_pruned_go_with_it(bench: Bench, tmp_path: Path) -> None:
    bench.stage_all(tmp_path, FakeMilvus(folder=tmp_path))
    settings = job_settings(bulk=BulkConfig(file_import=bench.config))
    with bench.shop.job("prune") as run:
        forget_files(JobContext(run, settings, bench.shop.catalog), INFO)
    assert bench.staging.names() == []
