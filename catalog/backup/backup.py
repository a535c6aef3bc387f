"""Make a backup while the service goes on, and bring one back into an empty place."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path

from sqlalchemy import inspect, select

from catalog.backup import dumps
from catalog.backup.archive import DUMP, Archive, Copied, Snapshot, copy_files, fingerprint
from catalog.backup.dumps import IMAGES, REPORTS, Contents, read_list
from catalog.blobs import FsspecBlobs
from catalog.database import CatalogConfig, open_engine, reading, utc_now
from catalog.image_files import SqlImageFiles
from catalog.opening import is_known, open_catalog, open_reports
from catalog.tables import FileHoldRow, ProductRow
from core.errors import Conflict

Stores = tuple[FsspecBlobs, FsspecBlobs]
"""Image files, and reports."""
_DUMP: dict[str, Callable[[CatalogConfig, Path], Contents]] = {
    "sqlite": dumps.dump_sqlite,
    "postgresql": dumps.dump_postgresql,
}
_RESTORE: dict[str, Callable[[CatalogConfig, Path], None]] = {
    "sqlite": dumps.restore_sqlite,
    "postgresql": dumps.restore_postgresql,
}


@dataclass(frozen=True, slots=True)
class Transfer:
    """A snapshot that was written or brought back, and what became of its files."""

    snapshot: Snapshot
    images: Copied = field(default_factory=Copied)
    reports: Copied = field(default_factory=Copied)
    files_belong_to_another: bool = False
    """A restore found that the store of image files belongs to a further database, and left it so."""

    @property
    def whole(self) -> bool:
        """Whether every file is where it should be."""
        return self.images.whole and self.reports.whole


def back_up(config: CatalogConfig, url: str, clock: Callable[[], datetime] = utc_now) -> Transfer:
    """Store the database and every file that it refers to, as of one moment, beside earlier backups.

    A file is durable before a row names it, and none is removed while the backup is under way, so those of the
    rows that were dumped are all there, however much is written and deleted meanwhile.

    Raises:
        ConfigError: the place cannot be opened, PostgreSQL's programs are not at hand, or the database's role
            may not hold the files.
        NotFound: there is no catalog.
        Unavailable: the database or one of the stores does not answer.
    """
    archive, name = Archive(url), Archive.name(clock())
    database = config.sqlalchemy_url.get_backend_name()
    with _files_held(config), tempfile.TemporaryDirectory(prefix="vitrine-backup-") as scratch:
        folder = Path(scratch)
        contents = _DUMP[database](config, folder / DUMP)
        sha256, size = fingerprint(folder / DUMP)
        done = Transfer(Snapshot(id=name, database=database, sha256=sha256, bytes=size, **asdict(contents)))
        _copy(folder, (FsspecBlobs(config.blobs_url), open_reports(config)), archive.stores, done)
        archive.keep(done.snapshot, folder)
    return done


def restore(
    config: CatalogConfig, url: str, snapshot: str | None = None, keep_index: bool = False
) -> Transfer:
    """Bring a snapshot back, by default the latest: the files first, then the database.

    The ledger forgets what is indexed, for Milvus may hold none of it, so that the service, which may
    run on the empty catalog, fills its collections. `keep_index` believes the ledger: Milvus is whole.

    Raises:
        NotFound: there is no such backup.
        Conflict: the catalog holds products, or the backup does not fit this database or this version.
        ConfigError: the place cannot be opened, or PostgreSQL's programs are not at hand.
        Unavailable: the dump is damaged, or the database or one of the stores does not answer.
    """
    archive = Archive(url)
    found = archive.find(snapshot)
    _check(config, found)
    done = Transfer(found)
    # A service on the empty catalog finds the files that come named by nothing, and must leave them.
    empty = open_catalog(config)
    replaced = empty.image_files.catalog_id()
    empty.close()
    with _files_held(config), tempfile.TemporaryDirectory(prefix="vitrine-restore-") as scratch:
        folder = Path(scratch)
        archive.fetch(found, folder)
        _copy(folder, archive.stores, (FsspecBlobs(config.blobs_url), open_reports(config)), done)
        _RESTORE[found.database](config, folder / DUMP)
    return replace(done, files_belong_to_another=not _begin_anew(config, keep_index, replaced))


@contextmanager
def _files_held(config: CatalogConfig) -> Iterator[None]:
    """Keep image files from being removed, where the catalog is of a version that removes any."""
    url = config.sqlalchemy_url
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).is_file():
        # Opening it would make one.
        yield
        return
    engine = open_engine(config)
    try:
        with reading(engine) as connection:
            removes = inspect(connection).has_table(FileHoldRow.__tablename__)
        files = SqlImageFiles(engine, FsspecBlobs(config.blobs_url))
        with files.holding() if removes else nullcontext():
            yield
    finally:
        engine.dispose()


def _begin_anew(config: CatalogConfig, keep_index: bool, replaced: str) -> bool:
    """Let the restored catalog begin; tells whether the store of image files is its own."""
    # Opening makes the tables of an earlier version those of this one.
    catalog = open_catalog(config)
    try:
        # A service on the empty catalog has made empty collections, which nothing tells from full ones.
        if not keep_index:
            catalog.ledger.forget_store(catalog.ledger.store_id())
        return catalog.image_files.take_over(replaced)
    finally:
        catalog.close()


def _copy(folder: Path, source: Stores, target: Stores, done: Transfer) -> None:
    for name, here, there, copied in zip(
        (IMAGES, REPORTS), source, target, (done.images, done.reports), strict=True
    ):
        copy_files(here, there, read_list(folder / name), copied)


def _check(config: CatalogConfig, snapshot: Snapshot) -> None:
    database = config.sqlalchemy_url.get_backend_name()
    if snapshot.database != database:
        raise Conflict(f"backup {snapshot.id} is of {snapshot.database}; database_url names {database}")
    if not is_known(snapshot.tables):
        raise Conflict(f"backup {snapshot.id} was made by a newer version of Vitrine: restore with that one")
    engine = open_engine(config)
    try:
        with reading(engine) as connection:
            made = inspect(connection).has_table(ProductRow.__tablename__)
            if made and connection.execute(select(ProductRow.id).limit(1)).first() is not None:
                raise Conflict(
                    "the catalog holds products: restore into an empty database, or move this one away"
                )
    finally:
        engine.dispose()
