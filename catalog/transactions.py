"""Transactions of the catalog, with the database's outages told in our own words."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import InterfaceError, OperationalError, TimeoutError

from catalog.engine import WRITES
from core.errors import Unavailable


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that sees one state of the database throughout and never waits for a writer.

    Raises:
        Unavailable: the database does not answer.
    """
    with _outages_told(), engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execution_options(isolation_level="REPEATABLE READ")
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that is durable when the block has ended, and undone when the block raises.

    Raises:
        Unavailable: the database does not answer, is full, or another writer was in the way for too long.
    """
    with _outages_told(), engine.connect() as connection:
        connection.execution_options(**{WRITES: True})
        with connection.begin():
            yield connection


@contextmanager
def _outages_told() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, TimeoutError) as error:
        raise Unavailable("the catalog's database does not answer; try again") from error
