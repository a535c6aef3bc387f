"""What each database spells in its own way."""

from typing import Any

from sqlalchemy import JSON, ColumnElement, Connection, Function, Table, func
from sqlalchemy.dialects import postgresql, sqlite


def insert_or_replace(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Begin an insert that takes `on_conflict_do_update`, which is the same on both databases."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def json_of_rows(dialect: str, *columns: ColumnElement[Any]) -> Function[Any]:
    """Aggregate rows into one JSON array of arrays, in any order; of no rows, an empty one or NULL."""
    if dialect == "postgresql":
        return func.json_agg(func.json_build_array(*columns), type_=JSON)
    return func.json_group_array(func.json_array(*columns), type_=JSON)
