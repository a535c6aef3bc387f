"""Parquet as a table, read by parts of its row groups."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow.parquet import ParquetFile

from catalog.sources.field_map import Row
from core.errors import InvalidInput

_ROWS_AT_ONCE = 256


class ParquetRows:
    """Implements `Rows`.

    Raises:
        InvalidInput: the file is not Parquet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with ParquetFile(path) as file:
                self.columns: list[str] = list(file.schema_arrow.names)
                self.total: int = file.metadata.num_rows
        except (pyarrow.ArrowException, OSError) as error:
            raise InvalidInput(f"the manifest is not Parquet: {error}").at("source.path") from None

    def rows(self, skip: int) -> Iterator[Row | InvalidInput]:
        """Yield the rows behind the first `skip`; whole row groups among these are not read."""
        with ParquetFile(self._path) as file:
            groups = list(range(file.num_row_groups))
            while groups and skip >= (count := file.metadata.row_group(groups[0]).num_rows):
                skip -= count
                groups.pop(0)
            if groups:
                yield from islice(_read(file, groups), skip, None)

    def convert(self, _column: str, value: Any) -> Any:
        """Parquet has types of its own."""
        return value


def _read(file: ParquetFile, groups: list[int]) -> Iterator[Row]:
    for batch in file.iter_batches(_ROWS_AT_ONCE, row_groups=groups):
        yield from batch.to_pylist()
