"""Backups of the catalog, made while the service goes on, and restored into an empty database.

A place of backups is any URL that fsspec knows:

    images/ab/cd/abcd…           image files by their sha256, shared by all snapshots
    reports/ab/cd/abcd…          reports of jobs, likewise
    snapshots/ID/catalog         the database: SQLite's file, or pg_dump's custom format
    snapshots/ID/images.txt      the image files that it refers to, a sha256 a line, in order
    snapshots/ID/reports.txt     the reports, likewise
    snapshots/ID/snapshot.json   counts, and the dump's sha256

`snapshot.json` is written last, so a backup that was cut short is none.
"""

import hashlib
import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, TypeGuard

from fsspec.implementations.local import LocalFileSystem
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import Engine, MetaData, func, inspect, select

from catalog.blobs import FsspecBlobs, open_files, outages_as_unavailable, sync_file, write_file
from catalog.database import (
    BUSY_TIMEOUT_S,
    POSTGRES_LIMITS,
    CatalogConfig,
    open_engine,
    reading,
    utc_now,
    writing,
)
from catalog.image_files import SqlImageFiles
from catalog.jobs import read_report_files
from catalog.opening import open_catalog, open_reports, revision_of, unknown_tables
from catalog.tables import ImageRow, ProductRow
from core.concurrency import MAX_READ_BYTES, WeightedSemaphore
from core.errors import ConfigError, Conflict, NotFound, Unavailable

_DUMP, _IMAGES, _REPORTS, _COMPLETE = "catalog", "images.txt", "reports.txt", "snapshot.json"
_FILES_AT_ONCE = 16
_PREFIX_DIGITS = 2
_ROWS_AT_ONCE = 10_000
_PROGRAM_TIMEOUT_S = 6 * 3600.0
"""Longest time of a dump or of its restore, so that a nightly backup ends before the next begins."""
_reading = WeightedSemaphore()
Stores = tuple[FsspecBlobs, FsspecBlobs]
"""Image files, and reports."""


class Snapshot(BaseModel):
    """One complete backup of the database."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(description="When the backup began, in UTC, as 20260131T031700123456Z.")
    database: Literal["sqlite", "postgresql"] = Field(description="Which database the dump is of.")
    tables: str = Field(description="The migration that its tables were at.")
    sha256: str = Field(description="Of the dump.")
    bytes: int = Field(description="Of the dump.")
    products: int = Field(description="Products in it.")
    images: int = Field(description="Images in it.")


@dataclass(slots=True)
class Copied:
    """Files that were there already, that were copied, and that cannot be had."""

    present: int = 0
    copied: int = 0
    copied_bytes: int = 0
    missing: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Transfer:
    """A snapshot that was made or restored, and its files."""

    snapshot: Snapshot
    images: Copied
    reports: Copied
    files_belong_to_another: bool = False
    """A restore found that the store of image files belongs to a further database, and left it so."""

    @property
    def whole(self) -> bool:
        """Every file is where it should be."""
        return not any(each.missing or each.damaged for each in (self.images, self.reports))


def back_up(config: CatalogConfig, url: str, clock: Callable[[], datetime] = utc_now) -> Transfer:
    """Store the database and every file that it refers to, as of one moment.

    A file is durable before a row names it, and no file is removed during a backup. So the files of all rows
    in the dump are there.

    Raises:
        ConfigError: the place cannot be opened, PostgreSQL's programs are missing, or the database's role may
            not hold the files.
        NotFound: there is no catalog.
        Unavailable: the database or one of the stores does not answer.
    """
    archive, name = Archive(url), clock().strftime("%Y%m%dT%H%M%S%fZ")
    if (file := _sqlite_file(config)) and not file.is_file():
        raise NotFound("there is no catalog to back up: the file of database_url does not exist")
    with _files_held(config), TemporaryDirectory(prefix="vitrine-backup-") as scratch:
        folder = Path(scratch)
        snapshot = _dump_database(config, folder, name)
        images, reports = _copy_listed(folder, _stores_of(config), archive.stores)
        archive.add(snapshot, folder)
    return Transfer(snapshot, images, reports)


def restore(
    config: CatalogConfig, url: str, snapshot: str | None = None, keep_index: bool = False
) -> Transfer:
    """Restore a snapshot, by default the latest: the files first, then the database.

    The ledger forgets what is indexed, since Milvus may hold none of it. A service that runs on the empty
    catalog then fills its collections. `keep_index` believes the ledger: Milvus is whole.

    Raises:
        NotFound: there is no such backup.
        Conflict: the catalog holds products, or the backup does not fit this database or this version.
        ConfigError: the place cannot be opened, or PostgreSQL's programs are missing.
        Unavailable: the dump is damaged, or the database or one of the stores does not answer.
    """
    archive = Archive(url)
    found = archive.find(snapshot)
    _check_target(config, found)
    # A service on the empty catalog must leave the files that come, although no row names them yet.
    with closing(open_catalog(config)) as empty:
        replaced = empty.image_files.catalog_id()
    with _files_held(config), TemporaryDirectory(prefix="vitrine-restore-") as scratch:
        folder = Path(scratch)
        archive.fetch(found, folder)
        images, reports = _copy_listed(folder, archive.stores, _stores_of(config))
        _restore_database(config, folder / _DUMP)
    # Opening migrates the tables of an earlier version.
    with closing(open_catalog(config)) as catalog:
        if not keep_index:
            # A service on the empty catalog has made empty collections, which look like full ones to the ledger.
            catalog.ledger.forget_store(catalog.ledger.store_id())
        ours = catalog.image_files.take_over(replaced)
    return Transfer(found, images, reports, files_belong_to_another=not ours)


class Archive:
    """The backups at a URL; every method may raise Unavailable.

    Raises:
        ConfigError: the URL names a file system that is unknown or whose package is not installed.
    """

    def __init__(self, url: str) -> None:
        self._files, root = open_files(url, "the place of the backups")
        self._snapshots = f"{root}/snapshots"
        self._is_local = isinstance(self._files, LocalFileSystem)
        url = url.rstrip("/")
        self.stores = FsspecBlobs(f"{url}/images"), FsspecBlobs(f"{url}/reports")

    def snapshots(self) -> list[Snapshot]:
        """List the complete snapshots, oldest first."""
        with outages_as_unavailable("the place of the backups"):
            self._files.invalidate_cache()
            found = self._files.glob(f"{self._snapshots}/*/{_COMPLETE}")
            texts = [self._files.cat_file(path) for path in sorted(found)]
        try:
            return [Snapshot.model_validate_json(text) for text in texts]
        except ValidationError:
            raise ConfigError("a snapshot.json is not what this version of Vitrine writes") from None

    def find(self, snapshot: str | None) -> Snapshot:
        """Find a snapshot by its id, or the latest.

        Raises:
            NotFound: there is no such complete snapshot.
        """
        known = {each.id: each for each in self.snapshots()}
        if not known:
            raise NotFound("there is no complete backup at this place")
        if snapshot is not None and snapshot not in known:
            raise NotFound(f"there is no backup {snapshot!r:.40}; the latest is {max(known)}")
        return known[snapshot or max(known)]

    def add(self, snapshot: Snapshot, folder: Path) -> None:
        """Store the dump and the lists of a local folder, then `snapshot.json`, which makes them a backup."""
        place, record = f"{self._snapshots}/{snapshot.id}", snapshot.model_dump_json(indent=2).encode()
        with outages_as_unavailable("the place of the backups"):
            if self._is_local:
                # An object store has no folders, and might make a bucket instead.
                self._files.makedirs(place, exist_ok=True)
            for name in (_DUMP, _IMAGES, _REPORTS):
                self._files.put_file(str(folder / name), f"{place}/{name}")
                if self._is_local:
                    sync_file(f"{place}/{name}")
            write_file(self._files, f"{place}/{_COMPLETE}", record)

    def fetch(self, snapshot: Snapshot, folder: Path) -> None:
        """Copy the dump and the lists to a local folder.

        Raises:
            Unavailable: the dump is not what was stored.
        """
        with outages_as_unavailable("the place of the backups"):
            for name in (_DUMP, _IMAGES, _REPORTS):
                self._files.get_file(f"{self._snapshots}/{snapshot.id}/{name}", str(folder / name))
        if _fingerprint(folder / _DUMP) != (snapshot.sha256, snapshot.bytes):
            raise Unavailable(f"the dump of backup {snapshot.id} is damaged; choose another by its id")


def copy_files(source: FsspecBlobs, target: FsspecBlobs, sha256s: Iterable[str]) -> Copied:
    """Copy files by their names, which come in order; each is held against its name before it is written.

    A damaged file is not copied, so an earlier copy of it stays.

    Raises:
        Unavailable: one of the stores does not answer.
    """
    copied = Copied()
    with ThreadPoolExecutor(_FILES_AT_ONCE, "copy") as pool:
        # Two listings answer for 1 of 256 files, and memory stays small.
        for prefix, names in groupby(sha256s, key=lambda name: name[:_PREFIX_DIGITS]):
            copy = partial(_copy_file, source, target, source.sizes(prefix), target.sizes(prefix))
            for sha256, outcome, size in pool.map(copy, names):
                if outcome == "present":
                    copied.present += 1
                elif outcome == "copied":
                    copied.copied += 1
                    copied.copied_bytes += size
                else:
                    (copied.missing if outcome == "missing" else copied.damaged).append(sha256)
    return copied


def _copy_file(
    source: FsspecBlobs, target: FsspecBlobs, there: dict[str, int], here: dict[str, int], sha256: str
) -> tuple[str, Literal["copied", "present", "missing", "damaged"], int]:
    if sha256 in here and there.get(sha256) == here[sha256]:
        return sha256, "present", here[sha256]
    with _reading.holding(there.get(sha256, 0) + here.get(sha256, 0), MAX_READ_BYTES):
        data = source.find(sha256)
        if _is_sound(data, sha256):
            target.put(data)
            return sha256, "copied", len(data)
        # The source has lost the file: a copy from before will do, where it is sound.
        if sha256 in here and _is_sound(target.find(sha256), sha256):
            return sha256, "present", here[sha256]
        return sha256, "missing" if data is None else "damaged", 0


def _is_sound(data: bytes | None, sha256: str) -> TypeGuard[bytes]:
    return data is not None and hashlib.sha256(data).hexdigest() == sha256


def _copy_listed(folder: Path, source: Stores, target: Stores) -> tuple[Copied, Copied]:
    """Copy the files that the two lists in the folder name."""
    with (folder / _IMAGES).open() as images, (folder / _REPORTS).open() as reports:
        return (
            copy_files(source[0], target[0], map(str.strip, images)),
            copy_files(source[1], target[1], map(str.strip, reports)),
        )


def _stores_of(config: CatalogConfig) -> Stores:
    return FsspecBlobs(config.blobs_url), open_reports(config)


def _fingerprint(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size


@contextmanager
def _engine_of(config: CatalogConfig) -> Iterator[Engine]:
    engine = open_engine(config)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def _files_held(config: CatalogConfig) -> Iterator[None]:
    """Keep image files from being removed."""
    with _engine_of(config) as engine:
        with reading(engine) as connection:
            revision = revision_of(connection)
        if not revision:
            raise NotFound("there is no catalog to back up: the database of database_url has no tables")
        if reason := unknown_tables(revision):
            raise Conflict(f"the database of database_url {reason}")
        with SqlImageFiles(engine, FsspecBlobs(config.blobs_url)).holding():
            yield


def _check_target(config: CatalogConfig, snapshot: Snapshot) -> None:
    database = config.sqlalchemy_url.get_backend_name()
    if snapshot.database != database:
        raise Conflict(f"backup {snapshot.id} is of {snapshot.database}; database_url names {database}")
    if reason := unknown_tables(snapshot.tables):
        raise Conflict(f"backup {snapshot.id} {reason}")
    with _engine_of(config) as engine, reading(engine) as connection:
        made = inspect(connection).has_table(ProductRow.__tablename__)
        if made and connection.execute(select(ProductRow.id).limit(1)).first() is not None:
            raise Conflict(
                "the catalog holds products: restore into an empty database, or move this one away"
            )


def _dump_database(config: CatalogConfig, folder: Path, name: str) -> Snapshot:
    """Write the dump and the lists of files into a folder; they hold one state of the database."""
    dump, file = folder / _DUMP, _sqlite_file(config)
    if file is not None:
        _copy_sqlite(file, dump)
        config = config.model_copy(update={"database_url": f"sqlite:///{dump}"})
    with _engine_of(config) as engine, reading(engine) as connection:
        # What only an import remembers is left out: nobody keeps it, and the next import reads it anew.
        named = select(ImageRow.sha256).distinct().order_by(ImageRow.sha256)
        images = connection.scalars(named, execution_options={"yield_per": _ROWS_AT_ONCE})
        for path, sha256s in ((_IMAGES, images), (_REPORTS, sorted(read_report_files(connection)))):
            with (folder / path).open("w") as lines:
                lines.writelines(f"{sha256}\n" for sha256 in sha256s)
        tables = revision_of(connection)
        products, count = (
            connection.scalar(select(func.count()).select_from(table)) for table in (ProductRow, ImageRow)
        )
        if file is None:
            # Last: a server may end a session that is idle for as long as a dump takes.
            shared = connection.scalar(select(func.pg_export_snapshot()))
            waits = f"--lock-wait-timeout={round(BUSY_TIMEOUT_S * 1000)}"
            _run_program(
                config, "pg_dump", "--format=custom", f"--snapshot={shared}", waits, f"--file={dump}"
            )
    sha256, size = _fingerprint(dump)
    return Snapshot(
        id=name,
        database=engine.dialect.name,
        tables=tables,
        sha256=sha256,
        bytes=size,
        products=products,
        images=count,
    )


def _restore_database(config: CatalogConfig, dump: Path) -> None:
    """Put a dump in the place of an empty catalog, in one transaction, whoever has it open."""
    if file := _sqlite_file(config):
        _copy_sqlite(dump, file)
        return
    # All tables that are there, also those of a later migration, of which the dump knows nothing.
    with _engine_of(config) as engine, writing(engine) as connection:
        (found := MetaData()).reflect(connection)
        found.drop_all(connection)
    _run_program(config, "pg_restore", "--clean", "--if-exists", "--single-transaction", str(dump))


def _sqlite_file(config: CatalogConfig) -> Path | None:
    url = config.sqlalchemy_url
    return Path(str(url.database)) if url.get_backend_name() == "sqlite" else None


def _copy_sqlite(source: Path, target: Path) -> None:
    try:
        with (
            closing(sqlite3.connect(source, timeout=BUSY_TIMEOUT_S)) as read,
            closing(sqlite3.connect(target, timeout=BUSY_TIMEOUT_S)) as written,
        ):
            written.execute("PRAGMA synchronous = FULL")
            # All pages in one step: with the write-ahead log that keeps no writer waiting, and a copy in
            # several steps begins anew with each write of another process (sqlite.org/backup.html).
            read.backup(written, pages=-1)
            (verdict,) = written.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        raise Unavailable(f"the catalog's database cannot be copied: {error}") from error
    if verdict != "ok":
        raise Unavailable(f"the copy of the catalog's database is not sound: {verdict}")


def _run_program(config: CatalogConfig, program: str, *arguments: str) -> None:
    """Run a program of PostgreSQL; it ends by itself when the server vanishes, and is killed at the time limit."""
    url = config.sqlalchemy_url.set(drivername="postgresql", password=None)
    limits = {name: str(limit) for name, limit in POSTGRES_LIMITS.items() if name not in url.query}
    address = url.update_query_dict(limits).render_as_string(hide_password=False)
    options = ("--no-owner", "--no-privileges", "--no-password", f"--dbname={address}")
    # Not among the arguments, which every process of the machine can read.
    password = config.sqlalchemy_url.password
    secret = {"PGPASSWORD": str(password)} if password else {}
    try:
        done = subprocess.run(
            [program, *options, *arguments],
            env={**os.environ, **secret},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PROGRAM_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        hours = _PROGRAM_TIMEOUT_S / 3600
        raise Unavailable(f"{program} did not end within {hours:g} hours and was stopped") from None
    except OSError as error:
        raise ConfigError(
            f"{program} is needed and cannot be run ({error.strerror}): install PostgreSQL's client programs"
        ) from None
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines()
        kind = Unavailable if "connection to server" in done.stderr else ConfigError
        raise kind(f"{program} failed: {reason[-1] if reason else done.returncode}")
