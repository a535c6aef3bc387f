"""The insert statement that can also replace, which each database spells in its own module."""

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite


def insert_or_replace(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Begin an insert that takes `on_conflict_do_update`, which is the same on both databases."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)
