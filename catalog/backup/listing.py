"""Which picture files and reports a state of the database refers to."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select

from catalog.job_rows import report_files
from catalog.migrate import revision_of
from catalog.tables import ImageRow, ProductRow

_ROWS_AT_ONCE = 10_000


PICTURES, REPORTS = "pictures.txt", "reports.txt"
"""The lists: a sha256 a line, in order."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a state of the database holds: the migration that its tables are at, and counts."""

    tables: str
    products: int
    pictures: int


def list_contents(connection: Connection, folder: Path) -> Contents:
    """Count, and write the lists of files into a folder, all of one transaction's state."""
    # What only an import remembers is left out: nobody keeps it, and the next import reads it anew.
    named = select(ImageRow.sha256).distinct().order_by(ImageRow.sha256)
    _write(folder / PICTURES, (row.sha256 for row in _stream(connection, named)))
    _write(folder / REPORTS, sorted(report_files(connection)))
    return Contents(
        tables=revision_of(connection),
        products=connection.scalar(select(func.count()).select_from(ProductRow)) or 0,
        pictures=connection.scalar(select(func.count()).select_from(ImageRow)) or 0,
    )


def read_list(path: Path) -> Iterator[str]:
    """Read a list back, a name at a time."""
    with path.open() as lines:
        yield from (line.rstrip("\n") for line in lines)


def _stream(connection: Connection, statement: Any) -> Iterator[Any]:
    return iter(connection.execute(statement, execution_options={"yield_per": _ROWS_AT_ONCE}))


def _write(path: Path, names: Any) -> None:
    with path.open("w") as lines:
        lines.writelines(f"{name}\n" for name in names)
