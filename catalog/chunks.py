"""Batches small enough for one SQL statement."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from core.portions import parts

T = TypeVar("T")

# SQLite takes 32,766 parameters in a statement. PostgreSQL compares every row it finds with every pair of
# a list, so the time of a statement grows with the square of this (measured: 5,000 pairs, 0.5 s).
_ROWS_PER_STATEMENT = 1_000


def chunks(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """Cut the rows into batches whose keys fit into one statement."""
    return parts(rows, _ROWS_PER_STATEMENT)
