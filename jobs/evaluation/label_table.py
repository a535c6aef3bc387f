"""Labelled queries as a table: one row for each query and product that answers it.

| column | what |
| --- | --- |
| `query_id` | text; rows of the same query share it |
| `text` | the query's words; empty or missing where it has none |
| `image` | the query's picture, a path relative to the table's folder; empty or missing where it has none |
| `product_id` | a product that was judged |
| `grade` | how well it answers: 0 not at all, 1 or more the better; 1 where the column is missing or empty |

A query has words, a picture or both, on at least one of its rows. The same table may be Parquet, CSV (UTF-8)
or JSONL, by the ending of its name.
"""

from collections.abc import Callable, Mapping
from typing import IO, Any

import pyarrow as pa
from pyarrow import csv, json, parquet

from core.errors import InvalidInput

TEXTS = ("query_id", "text", "image", "product_id")
_NEEDED = ("query_id", "product_id")
_HIGHEST_GRADE = 1000

Row = Mapping[str, Any]


def read_table(name: str, file: IO[bytes]) -> list[Row]:
    """Read the rows of a table; texts are stripped, those that are empty are None, and grades are whole numbers.

    Raises:
        InvalidInput: the file is of another kind, is damaged, or lacks a column or a value.
    """
    ending = name.rpartition(".")[2].lower()
    if ending not in _READERS:
        raise InvalidInput(f"labelled queries are a .parquet, .csv or .jsonl file, not {name!r:.200}")
    try:
        table = _READERS[ending](file)
        lacking = [column for column in _NEEDED if column not in table.column_names]
        if lacking:
            raise InvalidInput(
                f"{name}: there is no column {lacking[0]!r}; columns: {', '.join(table.column_names):.500}"
            )
        rows = _typed(table).to_pylist()
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise InvalidInput(f"{name} cannot be read: {str(error).splitlines()[0]:.300}") from None
    return [_row(name, number, row) for number, row in enumerate(rows, start=1)]


def _typed(table: Any) -> Any:
    columns = {
        column: table[column].cast(pa.int64() if column == "grade" else pa.string())
        for column in (*TEXTS, "grade")
        if column in table.column_names
    }
    return pa.table(columns)


def _row(name: str, number: int, row: dict[str, Any]) -> Row:
    cleaned = {column: (row.get(column) or "").strip() or None for column in TEXTS}
    for column in _NEEDED:
        if cleaned[column] is None:
            raise InvalidInput(f"{name}: row {number} has no {column}")
    grade = 1 if row.get("grade") is None else row["grade"]
    if not 0 <= grade <= _HIGHEST_GRADE:
        raise InvalidInput(f"{name}: row {number} has grade {grade}; grades are 0 to {_HIGHEST_GRADE}")
    return cleaned | {"grade": grade}


def _read_csv(file: IO[bytes]) -> Any:
    # Ids of digits only are texts all the same, and keep their zeros.
    types = dict.fromkeys(TEXTS, pa.string()) | {"grade": pa.int64()}
    options = csv.ConvertOptions(
        column_types=types, strings_can_be_null=True, quoted_strings_can_be_null=True
    )
    return csv.read_csv(
        file, convert_options=options, parse_options=csv.ParseOptions(newlines_in_values=True)
    )


_READERS: dict[str, Callable[[IO[bytes]], Any]] = {
    "csv": _read_csv,
    "jsonl": json.read_json,
    "parquet": parquet.read_table,
}
