"""Bring a database to the tables of this version."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, func, select

from catalog.transactions import writing

_MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = (0x7669, 0x7472)
"""The advisory lock's key on PostgreSQL: two numbers, a space apart from the locks of products."""


def migrate(engine: Engine) -> None:
    """Apply the missing migrations in one transaction; processes that start at once take turns.

    Raises:
        Unavailable: the database does not answer.
    """
    # On SQLite the transaction itself begins with the write lock.
    with writing(engine) as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(*_LOCK)))
        command.upgrade(alembic_config(connection), "head")


def drop_tables(engine: Engine) -> None:
    """Take back every migration, and with the tables all that they hold.

    Raises:
        Unavailable: the database does not answer.
    """
    with writing(engine) as connection:
        command.downgrade(alembic_config(connection), "base")


def revision_of(connection: Connection) -> str:
    """Read which migration the tables are at; empty where there are none."""
    return MigrationContext.configure(connection).get_current_revision() or ""


def is_known(revision: str) -> bool:
    """Tell whether this version of Vitrine can work on, or migrate from, tables at that migration."""
    return revision in {each.revision for each in ScriptDirectory(str(_MIGRATIONS)).walk_revisions()}


def alembic_config(connection: Connection) -> Config:
    """Configure alembic in code, on a connection that the caller owns."""
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config
