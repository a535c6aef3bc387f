"""CSV as a table: read twice, first for its size and the types of its columns."""

import csv
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from catalog.sources.cell_types import ColumnTypes
from catalog.sources.field_map import Row
from core.errors import InvalidInput
from core.sources import ManifestSource

_DELIMITERS = (",", ";", "\t", "|")


class CsvRows:
    """Implements `Rows`. Quoted line breaks, a byte order mark and any line ends are read as spreadsheets do.

    Raises:
        InvalidInput: the file is not in its encoding, is empty, or a column's name comes twice.
    """

    def __init__(self, path: Path, source: ManifestSource) -> None:
        self._path = path
        # "utf-8-sig" drops a byte order mark, and takes files without one too.
        self._encoding = "utf-8-sig" if source.encoding == "utf-8" else source.encoding
        self._types = ColumnTypes()
        try:
            self._delimiter = "\t" if source.delimiter == "tab" else source.delimiter or self._guessed()
            self.columns = self._header()
            self.total = self._learn()
        except (UnicodeError, csv.Error) as error:
            raise InvalidInput(
                f"the manifest cannot be read as {source.encoding} CSV: {error}; check the encoding and delimiter"
            ).at("source.path") from None

    def rows(self, skip: int) -> Iterator[Row | InvalidInput]:
        """Yield the rows behind the first `skip`; those that do not fit the header are errors."""
        for cells in islice(self._lines(), skip, None):
            yield cells if isinstance(cells, InvalidInput) else dict(zip(self.columns, cells, strict=True))

    def convert(self, column: str, value: Any) -> Any:
        """Give a cell the type of its column."""
        return self._types.convert(column, value)

    def _guessed(self) -> str:
        with self._opened() as file:
            first = file.readline(2**20)
        return max(_DELIMITERS, key=first.count)

    def _header(self) -> list[str]:
        with self._opened() as file:
            names = [name.strip() for name in next(self._reader(file), [])]
        if not any(names):
            raise InvalidInput("the manifest is empty; its first line must name the columns").at(
                "source.path"
            )
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InvalidInput(f"the manifest has several columns {twice[0]!r:.100}").at("source.path")
        return names

    def _learn(self) -> int:
        count = 0
        for cells in self._lines():
            count += 1
            if not isinstance(cells, InvalidInput):
                for column, text in zip(self.columns, cells, strict=True):
                    self._types.learn(column, text)
        return count

    def _lines(self) -> Iterator[list[str] | InvalidInput]:
        with self._opened() as file:
            reader = self._reader(file)
            next(reader)
            while True:
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    # The reader goes on behind the broken row.
                    yield InvalidInput(f"the row is not CSV: {error}")
                    continue
                if len(cells) == len(self.columns):
                    yield cells
                elif cells:
                    yield InvalidInput(f"the row has {len(cells)} cells; the header has {len(self.columns)}")

    def _opened(self) -> TextIO:
        return open(self._path, encoding=self._encoding, newline="")

    def _reader(self, file: TextIO) -> Iterator[list[str]]:
        # Strict: a quote that is never closed is an error instead of one row with the rest of the file.
        return csv.reader(file, delimiter=self._delimiter, strict=True)
