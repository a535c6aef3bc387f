"""Database engines: what each database needs so that many processes can write at once."""

import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event

from catalog.config import CatalogConfig
from core.errors import Unavailable

BUSY_TIMEOUT_S = 30.0
_POSTGRES_LIMITS = {"connect_timeout": 10, "tcp_user_timeout": 30_000}
"""In seconds and milliseconds, unless the URL says otherwise: a server that vanished without a word would
keep a call waiting for a quarter of an hour (libpq, connection parameters)."""
WRITES = "catalog_writes"
"""Execution option of connections whose transactions write."""
WRITE_TURN = "catalog_write_turn"
"""Execution option of an engine that lets one writer in at a time: the lock of this process's writers."""
READ_LIMIT = "catalog_read_limit"
"""Execution option of an engine that bounds its reads: says how many seconds one has that begins now."""


def open_engine(config: CatalogConfig, read_limit_s: Callable[[], float] | None = None) -> Engine:
    """Make the engine of the configured database; a SQLite file and its folder are created.

    `read_limit_s` is asked, in the thread that reads, how long a read may take that begins now.

    Raises:
        Unavailable: the SQLite file cannot be opened. A PostgreSQL server is not asked yet.
    """
    url = config.sqlalchemy_url
    connect_args: dict[str, Any] = {}
    if url.get_backend_name() == "sqlite":
        assert url.database is not None
        try:
            _create_with_wal(Path(url.database))
        except (OSError, sqlite3.Error) as error:
            raise Unavailable(f"the catalog's file cannot be opened: {error}") from error
        connect_args["timeout"] = BUSY_TIMEOUT_S
    else:
        connect_args = {name: limit for name, limit in _POSTGRES_LIMITS.items() if name not in url.query}
    engine = create_engine(
        url,
        pool_size=config.pool_size,
        max_overflow=config.pool_overflow,
        pool_timeout=config.pool_timeout_s,
        pool_recycle=config.pool_recycle_s,
        pool_pre_ping=url.get_backend_name() == "postgresql",
        connect_args=connect_args,
        execution_options={READ_LIMIT: read_limit_s},
    )
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite_connection)
        event.listen(engine, "begin", _begin_sqlite_transaction)
        engine.update_execution_options(**{WRITE_TURN: threading.Lock()})
    return engine


def _create_with_wal(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # The switch to WAL needs the file for itself and does not wait for it: it is tried until the others
    # that start at the same moment are through. The file remembers it.
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)) as connection:
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)


def _prepare_sqlite_connection(connection: sqlite3.Connection, _record: object) -> None:
    # The driver must not begin transactions by itself: it would begin them without the write lock.
    connection.isolation_level = None
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite_transaction(connection: Connection) -> None:
    # A transaction that reads first and asks for the write lock later fails at once with "database is
    # locked" when another has written meanwhile; one that takes the lock first waits for its turn.
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
