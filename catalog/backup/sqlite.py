"""The SQLite file, copied by the online backup API while others read and write it."""

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import create_engine

from catalog.backup.listing import Contents, list_contents
from catalog.config import CatalogConfig
from catalog.engine import BUSY_TIMEOUT_S, open_engine
from core.errors import NotFound, Unavailable


def dump(config: CatalogConfig, target: Path) -> Contents:
    """Copy the database as it stands to `target`, with the lists of its files beside it.

    Raises:
        NotFound: there is no such database.
        Unavailable: it cannot be read, or the copy is not sound.
    """
    live = Path(str(config.sqlalchemy_url.database))
    if not live.is_file():
        raise NotFound("there is no catalog to back up: the file of database_url does not exist")
    _copy(live, target)
    engine = create_engine(f"sqlite+pysqlite:///{target}")
    try:
        with engine.connect() as connection:
            return list_contents(connection, target.parent)
    finally:
        engine.dispose()


def restore(config: CatalogConfig, source: Path) -> None:
    """Put a dump in the place of an empty database, in one transaction, whoever has it open.

    Raises:
        Unavailable: the database cannot be written.
    """
    open_engine(config).dispose()
    _copy(source, Path(str(config.sqlalchemy_url.database)))


def _copy(source: Path, target: Path) -> None:
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
