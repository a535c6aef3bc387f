"""A table in a file as a source: CSV, JSON lines or Parquet."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from catalog.sources.csv_rows import CsvRows
from catalog.sources.entries import Entry, PictureReference, Record
from catalog.sources.field_map import FieldMap, Row
from catalog.sources.folder_paths import inside
from catalog.sources.jsonl_rows import JsonlRows
from catalog.sources.parquet_rows import ParquetRows
from core.errors import InvalidInput, VitrineError
from core.sources import ManifestSource


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
        self._rows = _open(path, source)
        self._fields = FieldMap(source.fields, self._rows.columns, self._locate, self._rows.convert)

    def total(self) -> int:
        """Count the rows, without the header."""
        return self._rows.total

    def entries(self, after: str | None) -> Iterator[Entry]:
        """Yield the products, a row each."""
        skip = int(after or 0)
        for number, row in enumerate(self._rows.rows(skip), start=skip + 1):
            yield read_entry(self._fields, row, number, str(number))

    def _locate(self, text: str) -> PictureReference:
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


def _open(path: Path, source: ManifestSource) -> Rows:
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
