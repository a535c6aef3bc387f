"""Transactions of the catalog, with the database's outages told in our own words."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import InterfaceError, OperationalError, TimeoutError

from catalog.engine import BUSY_TIMEOUT_S, READ_LIMIT, WRITE_TURN, WRITES
from core.errors import DeadlineExceeded, Unavailable

_STEPS_A_LOOK = 1_000
"""Steps of SQLite's virtual machine between two looks at the clock: some 20 µs."""
_CANCELED = "57014"
"""PostgreSQL's state of a statement that was canceled, as by its timeout."""

_LOCKED = "55P03"
"""PostgreSQL's state of a statement that has waited for a lock too long."""


@contextmanager
def reading(engine: Engine, timeout_s: float | None = None) -> Iterator[Connection]:
    """A transaction that sees one state of the database throughout and never waits for a writer.

    The limit is `timeout_s`, or what the engine gives every read. SQLite stops when the whole is over it, and
    PostgreSQL each statement that takes longer. The wait for a connection is bounded by `pool_timeout_s`.

    Raises:
        DeadlineExceeded: the time is over.
        Unavailable: the database does not answer.
    """
    engine_limit = engine.get_execution_options().get(READ_LIMIT)
    limits = [each for each in (timeout_s, engine_limit and engine_limit()) if each is not None]
    ends_at = time.monotonic() + min(limits) if limits else None
    with _outages_told(), engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execution_options(isolation_level="REPEATABLE READ")
        if ends_at is None:
            yield connection
        else:
            with _stopped_at(ends_at, connection):
                yield connection


@contextmanager
def writing(engine: Engine, bounded: bool = False) -> Iterator[Connection]:
    """A transaction that is durable when the block has ended, and undone when the block raises.

    `bounded`: on PostgreSQL too it waits for another's lock no longer than SQLite does.

    Raises:
        Unavailable: the database does not answer, is full, or another writer was in the way for too long.
    """
    with _outages_told(), _write_turn(engine), engine.connect() as connection:
        connection.execution_options(**{WRITES: True})
        if engine.dialect.name == "postgresql":
            # Whatever the server's default is: who has waited for a lock must see what its holder has committed.
            connection.execution_options(isolation_level="READ COMMITTED")
        with connection.begin():
            if bounded and engine.dialect.name == "postgresql":
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = {round(BUSY_TIMEOUT_S * 1000)}")
            yield connection


@contextmanager
def _write_turn(engine: Engine) -> Iterator[None]:
    """Wait for the other writers of this process before a connection is taken: readers need those."""
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
        # 0 would mean no limit. Undone with the transaction.
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
def _outages_told() -> Iterator[None]:
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
        # SQLite's drivers know no other error for a statement that is wrong, which is a bug and no outage.
        if getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR:
            raise
        raise Unavailable("the catalog's database does not answer; try again") from error


def _time_is_over() -> DeadlineExceeded:
    return DeadlineExceeded("the catalog's database did not answer in time")


def _busy() -> Unavailable:
    return Unavailable("the catalog's database is busy with other writes; try again")
