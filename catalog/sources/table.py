"""Tables in files, row by row: CSV, JSON lines, Parquet, Excel workbooks and Google Merchant XML.

CSV is read by Python's `csv`, not by pyarrow: pyarrow gives up a whole block where one row has too many cells, is
not UTF-8, or holds a cell larger than the block. A bad row is an error of its own here, whatever the format. No
reader ever takes what stands inside a quoted cell for a row.
"""

import csv
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import IO, Any
from xml.etree.ElementTree import Element, ParseError

import openpyxl
import pyarrow
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import iterparse
from openpyxl.cell.cell import ERROR_CODES
from openpyxl.utils.exceptions import InvalidFileException
from pyarrow.parquet import ParquetFile

from catalog.sources.entries import Row, kind_of
from core.errors import InvalidInput
from core.sources import AttributeType

Rows = Iterator[Row | InvalidInput]

_MAX_ROW = 16 * 2**20
"""Most characters or bytes of a row, so that a quote that is never closed does not fill the memory."""
_MAX_WORKBOOK_BYTES = 2**30
_ROWS_AT_ONCE = 256
_COMPRESSED = {".gz": "gzip", ".zst": "zstd"}
_DELIMITERS = (",", ";", "\t", "|")
_ENDINGS = {
    **dict.fromkeys((".csv", ".tsv", ".tab", ".txt"), "csv"),
    **dict.fromkeys((".jsonl", ".ndjson"), "jsonl"),
    **dict.fromkeys((".xlsx", ".xlsm"), "excel"),
    ".xml": "xml",
    ".parquet": "parquet",
}
# For the whole process, since `csv` has no other; rows are bounded where lines are read.
csv.field_size_limit(_MAX_ROW)


class Table:
    """A table in a file, which `opened` opens anew each time; all of it is read once at first.

    `kinds` are the types of columns by all of their cells, where the format itself has none for them. The
    encoding and the delimiter apply to CSV.

    Raises:
        InvalidInput: it is of another format, is damaged, or its columns have no names or one name twice.
    """

    def __init__(
        self,
        name: str,
        opened: Callable[[], IO[bytes]],
        encoding: str = "utf-8",
        delimiter: str | None = None,
    ) -> None:
        stem, compression = name, None
        for ending, kind in _COMPRESSED.items():
            if name.lower().endswith(ending):
                stem, compression = name[: -len(ending)], kind
        self.name = name
        self.format = _ENDINGS.get("." + stem.lower().rpartition(".")[2], "")
        self._opened_file, self._compression = opened, compression
        if not self.format or (compression and self.format in ("excel", "parquet")):
            raise InvalidInput(
                f"a table is one of {', '.join(_ENDINGS)}, or of these as text with {' or '.join(_COMPRESSED)} "
                f"behind, not {name!r:.200}"
            ).at("source.path")
        if self.format == "csv":
            with self._stream() as file:
                self._dialect = _Dialect(file.read(2**16), encoding, delimiter)
        self.kinds: dict[str, AttributeType] = {}
        self.columns, self.total = self._survey()

    def rows(self, skip: int = 0) -> Rows:
        """Yield the rows behind the first `skip`; empty ones are passed over and not counted."""
        with self._stream() as file:
            if self.format == "parquet":
                yield from _parquet_rows(file, skip)
            else:
                yield from islice(self._read(file)[1], skip, None)

    def _survey(self) -> tuple[Sequence[str], int]:
        with self._stream() as file:
            if self.format == "parquet":
                parquet = ParquetFile(file)
                return _checked_names(parquet.schema_arrow.names), parquet.metadata.num_rows
            header, rows = self._read(file)
            names, total = dict.fromkeys(header), 0
            for row in rows:
                total += 1
                if not isinstance(row, InvalidInput):
                    names.update(dict.fromkeys(row))
                    self._learn(row)
        if not names:
            raise InvalidInput(f"{self.name} holds no row of the format {self.format}").at("source.path")
        return list(names), total

    def _learn(self, row: Row) -> None:
        if self.format == "jsonl":
            return
        for name, value in row.items():
            if self.kinds.get(name) != "text" and (kind := kind_of(value, self.format != "excel")):
                self.kinds[name] = kind if self.kinds.get(name, kind) == kind else "text"

    def _read(self, file: IO[bytes]) -> tuple[Sequence[str], Rows]:
        """Return the names of the columns, where they stand before the rows, and the rows."""
        match self.format:
            case "csv":
                return _under_header(self._dialect.lines(file), exact=True)
            case "excel":
                return _under_header(_excel_lines(file), exact=False)
            case "xml":
                return (), _xml_rows(file)
            case _:
                return (), _json_rows(file)

    @contextmanager
    def _stream(self) -> Iterator[IO[bytes]]:
        with self._opened_file() as file:
            try:
                yield pyarrow.CompressedInputStream(file, self._compression) if self._compression else file
            except _DAMAGED as error:
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                raise InvalidInput(f"{self.name} cannot be read: {reason:.300}").at("source.path") from None
            except InvalidInput as error:
                raise error.reworded(f"{self.name}: {error.message}").at("source.path") from None


_DAMAGED = (
    pyarrow.ArrowException, OSError, EOFError, UnicodeError, csv.Error, ParseError, DefusedXmlException,
    zipfile.BadZipFile, InvalidFileException, KeyError, ValueError, LookupError,
)  # fmt: skip


def _checked_names(names: Sequence[str]) -> Sequence[str]:
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise InvalidInput(f"there are several columns {twice[0]!r:.100}")
    return names


def _under_header(lines: Iterator[list[Any] | InvalidInput], exact: bool) -> tuple[Sequence[str], Rows]:
    """Take the first line for the names of the columns; those without a name are dropped.

    `exact`: lines of another length are errors, unless the cells that are too many are empty.
    """
    first = next(lines, [])
    if isinstance(first, InvalidInput):
        raise first
    names = _checked_names([str(cell or "").strip() for cell in first])
    if not any(names):
        raise InvalidInput("the table is empty; its first line must name the columns")

    def rows() -> Rows:
        for cells in lines:
            if isinstance(cells, InvalidInput):
                yield cells
            elif exact and (len(cells) < len(names) or any(cells[len(names) :])):
                yield InvalidInput(f"the row has {len(cells)} cells; the header has {len(names)}")
            else:
                padded = cells + [None] * (len(names) - len(cells))
                yield {name: cell for name, cell in zip(names, padded, strict=False) if name}

    return [name for name in names if name], rows()


class _Dialect:
    """Encoding and delimiter of a CSV file, by its beginning and by what the caller names."""

    _END = "\0the end of the file\0"

    def __init__(self, head: bytes, encoding: str, delimiter: str | None) -> None:
        # A byte order mark is certain; nothing else is guessed of an encoding.
        unmarked = {"utf-8": "utf-8-sig", "utf-16": "utf-16-le"}
        has_mark = head.startswith((b"\xff\xfe", b"\xfe\xff"))
        self._encoding = "utf-16" if has_mark else unmarked.get(encoding, encoding)
        text = head.decode(self._encoding, "ignore")
        said = re.match(r'"?sep=([,;|\t])"?[\r\n]', text, re.IGNORECASE)
        self._skipped = 0 if said is None else 1
        header = re.sub(r'"[^"]*"', "", text[said.end() if said else 0 :]).strip("\r\n")
        first = re.split(r"[\r\n]", header, maxsplit=1)[0]
        guessed = said[1] if said else max(_DELIMITERS, key=first.count)
        self._delimiter = "\t" if delimiter == "tab" else delimiter or guessed

    def lines(self, file: IO[bytes]) -> Iterator[list[str] | InvalidInput]:
        """Yield the cells of each line that is not empty."""
        # What is not in the encoding becomes surrogates, so that it costs its row alone.
        errors = "strict" if self._encoding.startswith("utf-16") else "surrogateescape"
        with io.TextIOWrapper(file, self._encoding, errors=errors, newline="") as text:
            yield from self._cells(text)

    def _cells(self, text: io.TextIOWrapper) -> Iterator[list[str] | InvalidInput]:
        size = 0

        def bounded() -> Iterator[str]:
            nonlocal size
            while line := text.readline(_MAX_ROW):
                size += len(line)
                if size >= _MAX_ROW:
                    raise InvalidInput(
                        f"the row has more than {_MAX_ROW:,} characters; what is behind it is not read"
                    )
                yield line
            yield self._END

        # A quote inside a cell is taken as it stands, as spreadsheets do: a reader that refuses it would go on
        # at the next line, be it within another cell's quotes.
        reader = islice(csv.reader(bounded(), delimiter=self._delimiter), self._skipped, None)
        try:
            for cells in reader:
                size = 0
                if cells and cells[-1].endswith(self._END):
                    if cells != [self._END]:
                        yield InvalidInput(
                            "a quote in this row is never closed; what is behind it is not read"
                        )
                elif any(cell.strip() for cell in cells):
                    yield cells if _is_text(cells) else InvalidInput(self._hint())
        except InvalidInput as error:
            yield error

    def _hint(self) -> str:
        return (
            f"the row is not in {self._encoding.removesuffix('-sig')}; say the file's encoding: "
            "utf-8, utf-16, cp1252 (Windows-1252) or latin-1"
        )


def _is_text(cells: list[str]) -> bool:
    joined = "".join(cells)
    return "\0" not in joined and (joined.isascii() or not re.search("[\ud800-\udfff]", joined))


def _excel_lines(file: IO[bytes]) -> Iterator[list[Any] | InvalidInput]:
    """Yield the cells of each line of the first sheet that is shown."""
    with zipfile.ZipFile(file) as archive:
        size = sum(each.file_size for each in archive.infolist())
    if size > _MAX_WORKBOOK_BYTES:
        raise InvalidInput(f"the workbook unpacks to more than {_MAX_WORKBOOK_BYTES:,} bytes")
    file.seek(0)
    book = openpyxl.load_workbook(file, read_only=True, data_only=True)
    sheet = next((each for each in book.worksheets if each.sheet_state == "visible"), book.worksheets[0])
    # Some programs write a size of the sheet that is not so.
    sheet.reset_dimensions()
    for line in sheet.iter_rows(values_only=True):
        cells = [None if cell in ERROR_CODES else cell for cell in line]
        if any(cell is not None and str(cell).strip() for cell in cells):
            yield cells


class _BoundedFile:
    """Refuses to read more than `_MAX_ROW` bytes between two resets."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.count = 0

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes."""
        data = self._file.read(size)
        self.count += len(data)
        if self.count > _MAX_ROW:
            raise InvalidInput(f"an item has more than {_MAX_ROW:,} bytes; what is behind it is not read")
        return data


def _xml_rows(file: IO[bytes]) -> Rows:
    """Yield the items of an RSS feed or the entries of an Atom feed."""
    bounded = _BoundedFile(file)
    parents: list[Element] = []
    try:
        for event, element in iterparse(bounded, events=("start", "end"), forbid_dtd=True):
            if event == "start":
                parents.append(element)
                continue
            parents.pop()
            if _local(element.tag) in ("item", "entry"):
                yield _item_row(element)
                bounded.count = 0
                if parents:
                    parents[-1].clear()
    except ParseError as error:
        yield InvalidInput(f"the feed is not XML from here on: {error}; what is behind it is not read")
    except InvalidInput as error:
        yield error


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _item_row(item: Element) -> dict[str, Any]:
    texts: dict[str, list[str]] = {}
    for child in item:
        if len(child) == 0 and (text := (child.text or "").strip()):
            texts.setdefault(child.tag, []).append(text)
    # A field of Google's namespace stands for RSS's own of that name.
    ordered = sorted(texts, key=lambda tag: "base.google.com" in tag)
    return {_local(tag): texts[tag][0] if len(texts[tag]) == 1 else texts[tag] for tag in ordered}


def _json_rows(file: IO[bytes]) -> Rows:
    """Yield an object a line, in UTF-8."""
    lines = io.BufferedReader(file) if not hasattr(file, "peek") else file  # type: ignore[type-var]
    is_first = True
    while line := lines.readline(_MAX_ROW + 1):
        if len(line) > _MAX_ROW:
            while line and not line.endswith(b"\n"):
                line = lines.readline(_MAX_ROW)
            yield InvalidInput(f"the line is longer than {_MAX_ROW:,} bytes")
            continue
        if is_first:
            line, is_first = line.removeprefix(b"\xef\xbb\xbf"), False
        if line.strip():
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                found = None
            yield found if isinstance(found, dict) else InvalidInput("the line is not a JSON object in UTF-8")


def _parquet_rows(file: IO[bytes], skip: int) -> Rows:
    for batch in ParquetFile(file).iter_batches(_ROWS_AT_ONCE):
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
