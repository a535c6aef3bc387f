"""Dumps of SQLite and PostgreSQL, with the image files and reports that they refer to."""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, func, select
from sqlalchemy.engine import URL

from catalog.database import BUSY_TIMEOUT_S, CatalogConfig, open_engine, reading
from catalog.jobs import read_report_files
from catalog.opening import drop_tables, revision_of
from catalog.tables import ImageRow, ProductRow
from core.errors import ConfigError, NotFound, Unavailable

_ROWS_AT_ONCE = 10_000


IMAGES, REPORTS = "images.txt", "reports.txt"
"""The lists: a sha256 a line, in order."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a state of the database holds: the migration that its tables are at, and counts."""

    tables: str
    products: int
    images: int


def list_contents(connection: Connection, folder: Path) -> Contents:
    """Count, and write the lists of files into a folder, all of one transaction's state."""
    # What only an import remembers is left out: nobody keeps it, and the next import reads it anew.
    named = select(ImageRow.sha256).distinct().order_by(ImageRow.sha256)
    _write_list(folder / IMAGES, (row.sha256 for row in _stream_rows(connection, named)))
    _write_list(folder / REPORTS, sorted(read_report_files(connection)))
    return Contents(
        tables=revision_of(connection),
        products=connection.scalar(select(func.count()).select_from(ProductRow)) or 0,
        images=connection.scalar(select(func.count()).select_from(ImageRow)) or 0,
    )


def read_list(path: Path) -> Iterator[str]:
    """Read a list back, a name at a time."""
    with path.open() as lines:
        yield from (line.rstrip("\n") for line in lines)


def _stream_rows(connection: Connection, statement: Any) -> Iterator[Any]:
    return iter(connection.execute(statement, execution_options={"yield_per": _ROWS_AT_ONCE}))


def _write_list(path: Path, names: Any) -> None:
    with path.open("w") as lines:
        lines.writelines(f"{name}\n" for name in names)


def dump_sqlite(config: CatalogConfig, target: Path) -> Contents:
    """Copy the database as it stands to `target`, with the lists of its files beside it.

    Raises:
        NotFound: there is no such database.
        Unavailable: it cannot be read, or the copy is not sound.
    """
    live = Path(str(config.sqlalchemy_url.database))
    if not live.is_file():
        raise NotFound("there is no catalog to back up: the file of database_url does not exist")
    _copy_sqlite(live, target)
    engine = create_engine(f"sqlite+pysqlite:///{target}")
    try:
        with engine.connect() as connection:
            return list_contents(connection, target.parent)
    finally:
        engine.dispose()


def restore_sqlite(config: CatalogConfig, source: Path) -> None:
    """Put a dump in the place of an empty database, in one transaction, whoever has it open.

    Raises:
        Unavailable: the database cannot be written.
    """
    open_engine(config).dispose()
    _copy_sqlite(source, Path(str(config.sqlalchemy_url.database)))


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


def dump_postgresql(config: CatalogConfig, target: Path) -> Contents:
    """Write a dump in pg_dump's custom format to `target`, with the lists of its files beside it.

    Dump and lists see one state of the database, whatever is written meanwhile.

    Raises:
        ConfigError: there is no pg_dump, or it is older than the server.
        Unavailable: the server does not answer.
    """
    engine = open_engine(config)
    try:
        with reading(engine) as connection:
            shared = connection.scalar(select(func.pg_export_snapshot()))
            contents = list_contents(connection, target.parent)
            _run_program(config, "pg_dump", "--format=custom", f"--snapshot={shared}", f"--file={target}")
            return contents
    finally:
        engine.dispose()


def restore_postgresql(config: CatalogConfig, source: Path) -> None:
    """Put a dump in the place of an empty catalog, whoever has it open.

    Raises:
        ConfigError: there is no pg_restore, or it refuses.
        Unavailable: the server does not answer.
    """
    engine = open_engine(config)
    try:
        # They may be those of a later migration, of which the dump knows nothing.
        drop_tables(engine)
    finally:
        engine.dispose()
    _run_program(config, "pg_restore", "--clean", "--if-exists", "--single-transaction", str(source))


def _run_program(config: CatalogConfig, program: str, *arguments: str) -> None:
    path = shutil.which(program)
    if path is None:
        raise ConfigError(f"{program} is needed and not on the PATH: install PostgreSQL's client programs")
    url = config.sqlalchemy_url
    command = [
        path,
        "--no-owner",
        "--no-privileges",
        f"--dbname={_address_of(url)}",
        "--no-password",
        *arguments,
    ]
    # Not among the arguments, which every process of the machine can read.
    secret = {"PGPASSWORD": str(url.password)} if url.password else {}
    done = subprocess.run(
        command,
        env={**os.environ, **secret},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines()
        kind = Unavailable if "connection to server" in done.stderr else ConfigError
        raise kind(f"{program} failed: {reason[-1] if reason else done.returncode}")


def _address_of(url: URL) -> str:
    return url.set(drivername="postgresql", password=None).render_as_string(hide_password=False)
