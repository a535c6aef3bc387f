"""A table in a file as a source: CSV, JSON lines or Parquet."""

import csv
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TextIO

import pyarrow
from pyarrow.parquet import ParquetFile

from catalog.sources.entries import Entry, FieldMap, ImageReference, Record, Row
from catalog.sources.folder import inside
from core.errors import InvalidInput, VitrineError
from core.sources import ManifestSource

_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")
_TRUTHS = {"true": True, "false": False}
_INT64 = range(-(2**63), 2**63)


class ColumnTypes:
    """Learns the types of columns from all of their cells, so that no column mixes two.

    A number with a leading zero, as an article number or a postal code, makes its column one of texts.
    """

    def __init__(self) -> None:
        self._fits: dict[str, list[str]] = {}

    def learn(self, column: str, text: str) -> None:
        """Take a cell in; an empty one says nothing."""
        text = text.strip()
        if not text:
            return
        fits = self._fits.setdefault(column, list(_READERS))
        if fits:
            fits[:] = [name for name in fits if _FITS[name](text)]

    def convert(self, column: str, text: str | None) -> Any:
        """The value of a cell by the type of its column."""
        stripped = (text or "").strip()
        fits = self._fits.get(column)
        if not stripped or not fits:
            return text
        return _READERS[fits[0]](stripped)


def _is_integer(text: str) -> bool:
    return _INTEGER.fullmatch(text) is not None and len(text) <= 20 and int(text) in _INT64


def _is_number(text: str) -> bool:
    # A whole number that 64 bits do not hold is an identifier, of which a float would lose digits.
    if _INTEGER.fullmatch(text):
        return _is_integer(text)
    return _NUMBER.fullmatch(text) is not None and math.isfinite(float(text))


_FITS: dict[str, Callable[[str], bool]] = {
    "truth": lambda text: text.lower() in _TRUTHS,
    "integer": _is_integer,
    "number": _is_number,
}
_READERS: dict[str, Callable[[str], Any]] = {
    "truth": lambda text: _TRUTHS[text.lower()],
    "integer": int,
    "number": float,
}


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


_MAX_LINE_BYTES = 2**20


class JsonlRows:
    """Implements `Rows`: one object a line, in UTF-8; empty lines are passed over."""

    def __init__(self, path: Path) -> None:
        self._path = path
        names: set[str] = set()
        self.total = 0
        for row in self.rows(0):
            self.total += 1
            if not isinstance(row, InvalidInput):
                names.update(row)
        if not names:
            raise InvalidInput("the manifest holds no JSON object; write one a line").at("source.path")
        self.columns = sorted(names)

    def rows(self, skip: int) -> Iterator[Row | InvalidInput]:
        """Yield the rows behind the first `skip`."""
        return islice(self._parsed(), skip, None)

    def convert(self, _column: str, value: Any) -> Any:
        """JSON has types of its own."""
        return value

    def _parsed(self) -> Iterator[Row | InvalidInput]:
        with open(self._path, "rb") as file:
            is_first = True
            while line := file.readline(_MAX_LINE_BYTES + 1):
                if len(line) > _MAX_LINE_BYTES:
                    while line and not line.endswith(b"\n"):
                        line = file.readline(_MAX_LINE_BYTES)
                    yield InvalidInput(f"the line is longer than {_MAX_LINE_BYTES:,} bytes")
                    continue
                if is_first:
                    line, is_first = line.removeprefix(b"\xef\xbb\xbf"), False
                if line.strip():
                    yield _parse_line(line)


def _parse_line(line: bytes) -> Row | InvalidInput:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return InvalidInput("the line is not JSON in UTF-8")
    return found if isinstance(found, dict) else InvalidInput("the line is not a JSON object")


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
                yield from islice(_read_groups(file, groups), skip, None)

    def convert(self, _column: str, value: Any) -> Any:
        """Parquet has types of its own."""
        return value


def _read_groups(file: ParquetFile, groups: list[int]) -> Iterator[Row]:
    for batch in file.iter_batches(_ROWS_AT_ONCE, row_groups=groups):
        yield from batch.to_pylist()


class Rows(Protocol):
    """A table in a file: the names of its columns, the number of its rows, and the rows."""

    @property
    def columns(self) -> Sequence[str]:
        """The names of the columns."""
        ...

    @property
    def total(self) -> int:
        """The number of rows."""
        ...

    def rows(self, skip: int) -> Iterator[Row | InvalidInput]:
        """Yield the rows behind the first `skip`."""
        ...

    def convert(self, column: str, value: Any) -> Any:
        """Give a value, as an attribute, the type that its column has."""
        ...


class Manifest:
    """Implements `Source`; the position is the number of the row.

    Raises:
        InvalidInput: there is no such file, it cannot be read, or lacks a column that is asked for.
    """

    def __init__(self, source: ManifestSource) -> None:
        path = Path(source.path)
        if not path.is_file():
            raise InvalidInput(f"there is no file {source.path!r:.300}").at("source.path")
        state = path.stat()
        self.version = f"{state.st_size}:{state.st_mtime_ns}"
        self._folder = path.parent
        self._rows = _open_rows(path, source)
        self._fields = FieldMap(source.fields, self._rows.columns, self._locate, self._rows.convert)

    def total(self) -> int:
        """Count the rows, without the header."""
        return self._rows.total

    def entries(self, after: str | None) -> Iterator[Entry]:
        """Yield the products, a row each."""
        skip = int(after or 0)
        for number, row in enumerate(self._rows.rows(skip), start=skip + 1):
            yield read_entry(self._fields, row, number, str(number))

    def _locate(self, text: str) -> ImageReference:
        if text[:8].lower().startswith(("http://", "https://")):
            return text
        return inside(self._folder, text)


def read_entry(fields: FieldMap, row: Row | InvalidInput, number: int, position: str) -> Entry:
    """Make an entry of a row; what is wrong with the row is its content then."""
    product_id: str | None = None
    try:
        if isinstance(row, InvalidInput):
            raise row
        product_id = fields.product_id(row)
        content: Record | VitrineError = fields.record(row)
    except VitrineError as error:
        content = error
    return Entry(number, position, product_id, content)


def _open_rows(path: Path, source: ManifestSource) -> Rows:
    match path.suffix.lower():
        case ".csv" | ".tsv":
            return CsvRows(path, source)
        case ".jsonl" | ".ndjson":
            return JsonlRows(path)
        case ".parquet":
            return ParquetRows(path)
    raise InvalidInput(f"a manifest is .csv, .tsv, .jsonl, .ndjson or .parquet, not {path.suffix!r:.40}").at(
        "source.path"
    )
