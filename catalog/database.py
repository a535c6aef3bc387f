"""Database of the catalog: configuration, engine, transactions and dialects."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, field_validator
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Executable,
    Row,
    Select,
    create_engine,
    event,
    func,
    select,
    tuple_,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError, TimeoutError
from sqlalchemy.orm import DeclarativeBase

from core.concurrency import batched
from core.config import Config
from core.errors import ConfigError, DeadlineExceeded, Unavailable

MAX_IMAGES_PER_PRODUCT = 50
"""Most images a product may have, unless the configuration says otherwise."""
KEEP_JOBS_DAYS = 90.0
"""Days for which the record of a job is kept, unless the configuration says otherwise."""
_DRIVERS = {
    "sqlite": "sqlite+pysqlite",
    "sqlite+pysqlite": "sqlite+pysqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
BUSY_TIMEOUT_S = 30.0
POSTGRES_LIMITS = {"connect_timeout": 10, "tcp_user_timeout": 30_000}
"""In seconds and milliseconds, unless the URL sets them. Without them a call to a server that vanished waits for a
quarter of an hour (libpq, connection parameters)."""
WRITES = "catalog_writes"
"""Execution option of connections whose transactions write."""
WRITE_TURN = "catalog_write_turn"
"""Execution option of an engine with one writer at a time: the lock of this process's writers."""
READ_LIMIT = "catalog_read_limit"
"""Execution option of an engine with bounded reads: a function that returns the seconds of a read that begins."""
_STEPS_A_LOOK = 1_000
"""Steps of SQLite's virtual machine between two checks of the clock: some 20 µs."""
_CANCELED = "57014"
"""PostgreSQL's state of a statement that was canceled, as by its timeout."""
_LOCKED = "55P03"
"""PostgreSQL's state of a statement that has waited too long for a lock."""
T = TypeVar("T")
# SQLite takes 32,766 parameters in a statement. PostgreSQL compares every row it finds with every pair of a list,
# so the time grows with the square of this (measured: 5,000 pairs, 0.5 s).
_ROWS_PER_STATEMENT = 1_000


def utc_now() -> datetime:
    """Return the time, as an aware datetime."""
    return datetime.now(UTC)


class CatalogConfig(Config):
    """The database of the catalog and the store of its image files."""

    database_url: str = Field(
        description="SQLAlchemy URL: `sqlite:///path` or `postgresql://user:password@host/name`.",
        repr=False,
    )
    blobs_url: str = Field(
        description="Where image files lie, as fsspec names it: a folder, `file:///…`, "
        "`s3://bucket/prefix`, `gs://…`, `abfs://…` or, for tests, `memory://…`.",
        min_length=1,
    )
    pool_size: int = Field(default=5, ge=1, description="Database connections that a process keeps open.")
    pool_overflow: int = Field(
        default=10, ge=0, description="Further connections that a process opens under load and closes again."
    )
    pool_timeout_s: float = Field(
        default=30.0, gt=0, description="How long a call waits for a free connection, in seconds."
    )
    pool_recycle_s: int = Field(
        default=1800,
        gt=0,
        description="Age in seconds after which a connection is replaced, below the idle limit of firewalls.",
    )
    read_timeout_s: float = Field(
        default=30.0,
        gt=0,
        description="How long one read of the database may take in the gateway, in seconds; it ends "
        "sooner when the deadline of its request passes. Jobs and the repair read without a limit.",
    )
    keep_jobs_days: float = Field(
        default=KEEP_JOBS_DAYS,
        ge=1,
        description="Days for which the record of an ended job is kept; it goes when another job begins.",
    )

    @field_validator("database_url")
    @classmethod
    def _database_is_known(cls, value: str) -> str:
        _sqlalchemy_url(value)
        return value

    @property
    def sqlalchemy_url(self) -> URL:
        """The database URL with its driver: psycopg 3 for PostgreSQL."""
        return _sqlalchemy_url(self.database_url)


def _sqlalchemy_url(value: str) -> URL:
    # The messages never repeat the URL: it may hold a password.
    try:
        url = make_url(value)
    except ArgumentError:
        raise ConfigError(
            "database_url is no URL; use sqlite:///path or postgresql://user:password@host/name"
        ) from None
    if url.drivername not in _DRIVERS:
        raise ConfigError(f"database_url names {url.drivername!r}; the catalog needs sqlite or postgresql")
    if url.get_backend_name() == "sqlite" and (url.database in (None, "", ":memory:") or "mode" in url.query):
        raise ConfigError("database_url needs the path of a file: every process and thread opens it again")
    return url.set(drivername=_DRIVERS[url.drivername])


def open_engine(config: CatalogConfig, read_limit_s: Callable[[], float] | None = None) -> Engine:
    """Make the engine of the configured database; a SQLite file and its folder are created.

    `read_limit_s` is called in the reading thread and returns how long a read may take.

    Raises:
        Unavailable: the SQLite file cannot be opened. A PostgreSQL server is not contacted yet.
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
        connect_args = {name: limit for name, limit in POSTGRES_LIMITS.items() if name not in url.query}
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
    # The switch to WAL needs the file exclusively and does not wait, so it is retried while other processes
    # start. The file keeps the setting.
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
    # The driver would begin transactions without the write lock.
    connection.isolation_level = None
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite_transaction(connection: Connection) -> None:
    # A transaction that reads first and then needs the write lock fails at once with "database is locked" when
    # another has written meanwhile. One that takes the lock first waits for it.
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def reading(engine: Engine, timeout_s: float | None = None) -> Iterator[Connection]:
    """Open a transaction that sees one state of the database and never waits for a writer.

    The limit is `timeout_s` or the engine's limit of every read. SQLite applies it to the transaction, PostgreSQL
    to each statement. The wait for a connection is bounded by `pool_timeout_s`.

    Raises:
        DeadlineExceeded: the limit has passed.
        Unavailable: the database does not answer.
    """
    engine_limit = engine.get_execution_options().get(READ_LIMIT)
    limits = [each for each in (timeout_s, engine_limit and engine_limit()) if each is not None]
    ends_at = time.monotonic() + min(limits) if limits else None
    with _outages_as_unavailable(), engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execution_options(isolation_level="REPEATABLE READ")
        if ends_at is None:
            yield connection
        else:
            with _stopped_at(ends_at, connection):
                yield connection


@contextmanager
def writing(engine: Engine, bounded: bool = False) -> Iterator[Connection]:
    """Open a transaction that is durable when the block has ended, and rolled back when the block raises.

    `bounded`: on PostgreSQL, too, it waits for a lock no longer than on SQLite.

    Raises:
        Unavailable: the database does not answer, is full, or another writer holds a lock for too long.
    """
    with _outages_as_unavailable(), _write_turn(engine), engine.connect() as connection:
        connection.execution_options(**{WRITES: True})
        if engine.dialect.name == "postgresql":
            # Whatever the server's default: after waiting for a lock it must see what the holder committed.
            connection.execution_options(isolation_level="READ COMMITTED")
        with connection.begin():
            if bounded and engine.dialect.name == "postgresql":
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = {round(BUSY_TIMEOUT_S * 1000)}")
            yield connection


def prefer_indexes(connection: Connection) -> None:
    """Have PostgreSQL answer the rest of this transaction by indexes, wherever it can.

    An index of few rows keeps the pages of all that were ever in it at once. By these pages the planner may think
    that a scan of the whole table costs less.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")


class SqlPart:
    """A part of the catalog on one engine; every method may raise Unavailable."""

    def __init__(self, engine: Engine, clock: Callable[[], datetime] = utc_now) -> None:
        self._engine = engine
        self._clock = clock

    def _read(self, *statements: Executable, by_index: bool = False) -> list[Row[*tuple[Any, ...]]]:
        """Read all rows of these statements, in one transaction; see `prefer_indexes`."""
        with reading(self._engine) as connection:
            if by_index:
                prefer_indexes(connection)
            return [row for each in statements for row in connection.execute(each)]


@contextmanager
def _write_turn(engine: Engine) -> Iterator[None]:
    """Wait for other writers of this process before taking a connection, which readers need."""
    turn = engine.get_execution_options().get(WRITE_TURN)
    if turn is None:
        yield
        return
    if not turn.acquire(timeout=BUSY_TIMEOUT_S):
        raise _busy()
    try:
        yield
    finally:
        turn.release()


@contextmanager
def _stopped_at(ends_at: float, connection: Connection) -> Iterator[None]:
    left_s = ends_at - time.monotonic()
    if left_s <= 0:
        raise _time_is_over()
    if connection.dialect.name == "postgresql":
        # 0 would mean no limit. The setting ends with the transaction.
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {max(1, round(left_s * 1000))}")
        yield
        return
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    driver.set_progress_handler(lambda: time.monotonic() > ends_at, _STEPS_A_LOOK)
    try:
        yield
    finally:
        driver.set_progress_handler(None, 0)


@contextmanager
def _outages_as_unavailable() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, TimeoutError) as error:
        cause = getattr(error, "orig", None)
        if (
            getattr(cause, "sqlstate", None) == _CANCELED
            or getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT
        ):
            raise _time_is_over() from error
        if getattr(cause, "sqlstate", None) == _LOCKED:
            raise _busy() from error
        # SQLite's driver raises this for a wrong statement too, which is a bug and no outage.
        if getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR:
            raise
        raise Unavailable("the catalog's database does not answer; try again") from error


def _time_is_over() -> DeadlineExceeded:
    return DeadlineExceeded("the catalog's database did not answer in time")


def _busy() -> Unavailable:
    return Unavailable("the catalog's database is busy with other writes; try again")


def take_turns(connection: Connection, lock: tuple[int, int], shared: bool = False) -> None:
    """Serialize the transactions that take this lock, until they end; those that share it run side by side."""
    # On SQLite a writing transaction holds the database's one write lock.
    if connection.dialect.name == "postgresql":
        take = func.pg_advisory_xact_lock_shared if shared else func.pg_advisory_xact_lock
        connection.execute(select(take(*lock)))


def lock(table: type[DeclarativeBase], condition: ColumnElement[bool]) -> Select[*tuple[Any, ...]]:
    """Select the keys of rows and lock them in that order, so that overlapping writers never deadlock.

    SQLite has one writer at a time.
    """
    key = table.metadata.tables[table.__tablename__].primary_key
    return select(*key).where(condition).order_by(*key).with_for_update()


def locked(table: type[DeclarativeBase], condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """Select the same rows, locked as by `lock` within the statement."""
    key = table.metadata.tables[table.__tablename__].primary_key
    return tuple_(*key).in_(lock(table, condition))


def upsert(
    connection: Connection,
    table: type[DeclarativeBase],
    rows: Sequence[Mapping[str, Any]],
    changed: Iterable[str] = (),
    where: ColumnElement[bool] | None = None,
    key: Sequence[str] = (),
) -> None:
    """Insert rows; one whose key exists changes these columns where the condition holds, or nothing.

    The key is the primary key, unless other columns are named.
    """
    if rows:
        # Every write of a product takes several, and building one takes as long as running it.
        build = _upsert_of_all if where is None else _upsert
        statement = build(connection.dialect.name, table, tuple(changed), tuple(key), where)
        connection.execute(statement, rows)


def _upsert(
    dialect: str,
    table: type[DeclarativeBase],
    changed: tuple[str, ...],
    key: tuple[str, ...],
    where: ColumnElement[bool] | None,
) -> postgresql.Insert | sqlite.Insert:
    target = table.metadata.tables[table.__tablename__]
    statement: postgresql.Insert | sqlite.Insert
    statement = postgresql.insert(target) if dialect == "postgresql" else sqlite.insert(target)
    key = key or tuple(column.name for column in target.primary_key)
    if changed:
        changes = {name: statement.excluded[name] for name in changed}
        return statement.on_conflict_do_update(index_elements=key, set_=changes, where=where)
    return statement.on_conflict_do_nothing(index_elements=key)


_upsert_of_all = lru_cache(maxsize=64)(_upsert)


def batched_rows(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """Split rows into batches whose keys fit into one statement."""
    return batched(rows, _ROWS_PER_STATEMENT)
