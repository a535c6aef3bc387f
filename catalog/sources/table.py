"""Tables in files, row by row: CSV, JSON lines, Parquet, Excel workbooks and Google Merchant XML.

CSV is read by Python's `csv`. pyarrow's reader loses a whole block if one row has too many cells, is not UTF-8, or
holds a cell larger than the block. Here a bad row is an error of its own. No reader takes the inside of a quoted
cell for a row.
"""

import csv
import io
import json
import re
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import PurePath
from typing import IO, Any
from xml.etree.ElementTree import Element, ParseError

import pyarrow
from defusedxml.ElementTree import iterparse
from pyarrow.parquet import ParquetFile

from catalog.sources.entries import Row, is_usual_column, kind_of
from core.errors import InvalidInput
from core.sources import AttributeType

Rows = Iterator[Row | InvalidInput]
Lines = Iterator[list[Any] | InvalidInput]

_MAX_ROW_BYTES = 16 * 2**20
_MAX_WORKBOOK_BYTES = 2**30
_MAX_SHEET_LINES = 2**20
_ROWS_AT_ONCE = 256
_COMPRESSED = {".gz": "gzip", ".zst": "zstd"}
_FORMATS = {
    **dict.fromkeys((".csv", ".tsv", ".tab", ".txt"), "csv"),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "jsonl"),
    **dict.fromkeys((".xlsx", ".xlsm"), "excel"),
    ".xml": "xml",
    ".parquet": "parquet",
}
_DAMAGED = (
    pyarrow.ArrowException, OSError, EOFError, ValueError, LookupError, csv.Error, ParseError, zlib.error,
    zipfile.BadZipFile,
)  # fmt: skip
# `csv` has this limit only for the whole process. It is never reached, because `_BoundedFile` bounds each row.
csv.field_size_limit(2 * _MAX_ROW_BYTES)


class Table:
    """A table in a file. `opened` opens the file; the constructor reads all of it once, to learn the columns.

    `kinds` are the types of the columns, by all of their cells, for formats that do not name types. The encoding,
    the delimiter and the escape apply to CSV only.

    Raises:
        InvalidInput: the format is unknown, the file is damaged, or its columns have no names.
    """

    def __init__(
        self,
        name: str,
        opened: Callable[[], IO[bytes]],
        encoding: str = "utf-8",
        delimiter: str | None = None,
        escape: str | None = None,
    ) -> None:
        path = PurePath(name.lower())
        self._compression = _COMPRESSED.get(path.suffix)
        self.format = _FORMATS.get(path.with_suffix("").suffix if self._compression else path.suffix, "")
        if not self.format or (self._compression and self.format in ("excel", "parquet")):
            raise InvalidInput(
                f"a table is one of {', '.join(_FORMATS)}, or of these as text with {' or '.join(_COMPRESSED)} "
                f"behind, not {name!r:.200}"
            ).at("source.path")
        self.name, self._opened_file = name, opened
        self._csv_options = encoding, delimiter, escape
        self.kinds: dict[str, AttributeType] = {}
        self.columns, self.total = self._survey()

    def rows(self, skip: int = 0, columns: Collection[str] | None = None) -> Rows:
        """Yield the rows after the first `skip` rows; empty rows are skipped and not counted.

        `columns`: in Parquet only these are read, so a bad cell in another column does no harm.
        """
        with self._stream() as file:
            if self.format == "parquet":
                yield from _parquet_rows(file, skip, columns)
            else:
                yield from islice(self._read(file)[1], skip, None)

    def _survey(self) -> tuple[Sequence[str], int]:
        with self._stream() as file:
            if self.format == "parquet":
                parquet = ParquetFile(file)
                return _checked_names(parquet.schema_arrow.names), parquet.metadata.num_rows
            header, rows = self._read(file)
            names, total = dict.fromkeys(header), 0
            error = InvalidInput(f"there is no row of the format {self.format}")
            for total, row in enumerate(rows, start=1):  # noqa: B007
                if isinstance(row, InvalidInput):
                    error = row
                else:
                    names.update(dict.fromkeys(row))
                    self._learn(row)
            if not names:
                raise error
        return list(names), total

    def _learn(self, row: Row) -> None:
        if self.format == "jsonl":
            return
        for name, value in row.items():
            if self.kinds.get(name) != "text" and (kind := kind_of(value, self.format != "excel")):
                self.kinds[name] = kind if self.kinds.get(name, kind) == kind else "text"

    def _read(self, file: IO[bytes]) -> tuple[Sequence[str], Rows]:
        """Return the column names, if the format has them before the rows, and the rows."""
        if self.format == "excel":
            return _under_header(_excel_lines(file), exact=False)
        bounded = _BoundedFile(file)
        buffered = io.BufferedReader(bounded, 2**16)
        if self.format == "csv":
            lines = bounded.by_row(_csv_lines(buffered, *self._csv_options))
            return _under_header(lines, exact=True)
        return (), bounded.by_row(_xml_rows(buffered) if self.format == "xml" else _json_rows(buffered))

    @contextmanager
    def _stream(self) -> Iterator[IO[bytes]]:
        with self._opened_file() as file:
            try:
                yield pyarrow.CompressedInputStream(file, self._compression) if self._compression else file
            except InvalidInput as error:
                raise error.reworded(f"{self.name}: {error.message}").at("source.path") from None
            except _DAMAGED as error:
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                raise InvalidInput(f"{self.name} cannot be read: {reason:.300}").at("source.path") from None


class _BoundedFile(io.RawIOBase):
    """A file whose rows have at most `_MAX_ROW_BYTES`, so that an unclosed quote cannot fill the memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._read = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer."""
        data = self._file.read(len(buffer))
        self._read += len(data)
        if self._read > _MAX_ROW_BYTES + len(buffer):
            raise InvalidInput(
                f"the row has more than {_MAX_ROW_BYTES:,} bytes; what is behind it is not read"
            )
        buffer[: len(data)] = data
        return len(data)

    def by_row(self, rows: Iterator[Any]) -> Iterator[Any]:
        """Yield the rows of a reader of this file, without None; an error that ends it is the last row."""
        try:
            for row in rows:
                self._read = 0
                if row is not None:
                    yield row
        except InvalidInput as error:
            yield error
        except ParseError as error:
            yield InvalidInput(f"the file is not XML from here on: {error}; what is behind it is not read")


def _checked_names(names: Sequence[str]) -> Sequence[str]:
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise InvalidInput(f"there are several columns {twice[0]!r:.100}")
    return names


def _under_header(lines: Lines, exact: bool) -> tuple[Sequence[str], Rows]:
    """Take the column names from the first line; columns without a name are dropped.

    A single cell above the names is a title, as Numbers writes it, and is skipped. `exact`: a line of another length
    is an error. Missing cells of columns without a name are allowed, and so are further cells that are empty.
    """
    first, second = next(lines, []), next(lines, [])
    if isinstance(first, InvalidInput):
        raise first
    names = _names(first)
    if len(set(names) - {""}) == 1 and not any(map(is_usual_column, names)):
        below = [] if isinstance(second, InvalidInput) else _names(second)
        if sum(map(bool, below)) > 1 and any(map(is_usual_column, below)):
            names, second = below, next(lines, [])
    width = len(names)
    while names and not names[-1]:
        del names[-1]
    if not names:
        raise InvalidInput("the table is empty; its first line must name the columns")

    def rows() -> Rows:
        has_twice = len(set(names) - {""}) < sum(map(bool, names))
        for cells in chain([second] if second else [], lines):
            if isinstance(cells, InvalidInput):
                yield cells
            elif exact and len(cells) < len(names):
                yield InvalidInput(f"the row has {len(cells)} cells; the header has {len(names)}")
            elif exact and any(cells[width:]):
                yield InvalidInput(f"the row has {len(cells)} cells; the header has {width}")
            else:
                padded = [*cells, *[None] * (len(names) - len(cells))]
                pairs = [(name, cell) for name, cell in zip(names, padded, strict=False) if name]
                yield _merged(pairs) if has_twice else dict(pairs)

    return list(dict.fromkeys(filter(None, names))), rows()


def _names(cells: Sequence[Any]) -> list[str]:
    return [str(cell or "").strip() for cell in cells]


def _merged(pairs: Sequence[tuple[str, Any]]) -> Row:
    """Merge the columns with the same name to one field; several values become a list."""
    values: dict[str, list[Any]] = {}
    for name, cell in pairs:
        known = values.setdefault(name, [])
        known += [cell] * (cell not in (None, "", *known))
    return {name: found if len(found) > 1 else next(iter(found), None) for name, found in values.items()}


_END = "\0the end of the file\0"


def _csv_lines(
    file: "io.BufferedReader[Any]", encoding: str, delimiter: str | None, escape: str | None
) -> Iterator[list[Any] | InvalidInput | None]:
    """Yield the cells of each line, and None for an empty one."""
    head = file.peek()
    # Only a byte order mark is certain, so no encoding is guessed from anything else.
    has_mark = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    codec = "utf-16" if has_mark else {"utf-8": "utf-8-sig", "utf-16": "utf-16-le"}.get(encoding, encoding)
    beginning = head.decode(codec, "ignore")
    said = re.match(r'"?sep=([,;|\t])"?[\r\n]', beginning, re.IGNORECASE)
    if said:
        guessed = said[1]
    else:
        header = re.sub(r'"[^"]*"', "", beginning).lstrip().partition("\n")[0]
        guessed = max((",", ";", "\t", "|"), key=header.count)
    # Bytes outside of the encoding become surrogates, so that only their row fails.
    errors = "strict" if codec.startswith("utf-16") else "surrogateescape"
    text = io.TextIOWrapper(file, codec, errors=errors, newline="")
    # A quote inside a cell is kept, as in spreadsheets. A reader that refuses it would continue at the next line,
    # which may be inside another quoted cell.
    delimiter = "\t" if delimiter == "tab" else delimiter or guessed
    reader = csv.reader(chain(text, [_END]), delimiter=delimiter, escapechar=escape)
    for cells in islice(reader, 1 if said else 0, None):
        if cells and cells[-1].endswith(_END):
            if cells != [_END]:
                yield InvalidInput("a quote in this row is never closed; what is behind it is not read")
        elif not any(cell.strip() for cell in cells):
            yield None
        elif re.search("[\0\ud800-\udfff]", "".join(cells)):
            yield InvalidInput(
                f"the row is not in {codec.removesuffix('-sig')}; say the file's encoding: utf-8, utf-16, "
                "cp1252 (Windows-1252) or latin-1"
            )
        else:
            yield cells


def _excel_lines(file: IO[bytes]) -> Lines:
    """Yield the cells of each line of the first sheet that is shown."""
    # Imported here, because openpyxl takes longer to import than all other readers of tables.
    from openpyxl import load_workbook
    from openpyxl.cell.cell import ERROR_CODES

    with zipfile.ZipFile(file) as archive:
        # Sheets are read line by line, but their shared texts are held in memory.
        sizes = [each.file_size * (1 if "worksheets/" in each.filename else 4) for each in archive.infolist()]
    if sum(sizes) > _MAX_WORKBOOK_BYTES:
        raise InvalidInput(f"the workbook unpacks to more than {_MAX_WORKBOOK_BYTES:,} bytes")
    book = load_workbook(file, read_only=True, data_only=True)
    visible = [each for each in book.worksheets if each.sheet_state == "visible"]
    # Numbers begins its workbooks with a sheet that lists the others.
    sheet = next(iter([each for each in visible if each.title != "Export Summary"] or book.worksheets))
    # Some programs write a wrong size of the sheet.
    sheet.reset_dimensions()
    for number, line in enumerate(sheet.iter_rows(values_only=True)):
        # A line may claim any number, and openpyxl makes all lines before it.
        if number >= _MAX_SHEET_LINES:
            raise InvalidInput(f"a sheet has at most {_MAX_SHEET_LINES:,} lines")
        cells = [None if cell in ERROR_CODES else cell for cell in line]
        if any(cell is not None and str(cell).strip() for cell in cells):
            yield cells


def _xml_rows(file: "io.BufferedReader[Any]") -> Rows:
    """Yield the items of an RSS feed or the entries of an Atom feed."""
    parents: list[Element] = []
    for event, element in iterparse(file, events=("start", "end"), forbid_dtd=True):
        if event == "start":
            parents.append(element)
            continue
        parents.pop()
        if element.tag.rpartition("}")[2] in ("item", "entry"):
            yield _item_row(element)
            if parents:
                parents[-1].clear()


def _item_row(item: Element) -> dict[str, Any]:
    texts: dict[str, list[str]] = {}
    for child in item:
        if len(child) == 0 and (text := (child.text or "").strip()):
            texts.setdefault(child.tag, []).append(text)
    # A field in Google's namespace replaces RSS's field of the same name.
    ordered = sorted(texts, key=lambda tag: "base.google.com" in tag)
    return {tag.rpartition("}")[2]: texts[tag][0] if len(texts[tag]) == 1 else texts[tag] for tag in ordered}


def _json_rows(file: "io.BufferedReader[Any]") -> Iterator[Row | InvalidInput | None]:
    """Yield the object of each line, and None for an empty line; or the objects of a list of one row's size."""
    if file.peek().removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[":
        try:
            found = json.loads(file.read().removeprefix(b"\xef\xbb\xbf"))
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"the list is not JSON in UTF-8: {error}") from None
        for item in found:
            yield item if isinstance(item, dict) else InvalidInput("the item is not a JSON object")
        return
    for number, line in enumerate(file):
        if not line.strip():
            yield None
            continue
        try:
            found = json.loads(line if number else line.removeprefix(b"\xef\xbb\xbf"))
        except (ValueError, RecursionError):
            found = None
        yield found if isinstance(found, dict) else InvalidInput("the line is not a JSON object in UTF-8")


def _parquet_rows(file: IO[bytes], skip: int, columns: Collection[str] | None) -> Rows:
    names = None if columns is None else list(columns)
    for batch in ParquetFile(file).iter_batches(_ROWS_AT_ONCE, columns=names):
        if skip < len(batch):
            yield from _plain_rows(batch.slice(skip))
        skip = max(0, skip - len(batch))


def _plain_rows(batch: Any) -> Rows:
    try:
        yield from batch.to_pylist(maps_as_pydicts="strict")
    except (pyarrow.ArrowException, ValueError, LookupError, OverflowError) as error:
        if len(batch) == 1:
            yield InvalidInput(f"a cell of the row cannot be read: {error}")
        else:
            for number in range(len(batch)):
                yield from _plain_rows(batch.slice(number, 1))
