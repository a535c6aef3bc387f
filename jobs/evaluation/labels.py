"""Labeled queries, read from a table with the images beside it.

| column | what |
| --- | --- |
| `query_id` | text; rows of the same query share it |
| `text` | the query's text; empty or missing where it has none |
| `image` | the query's image, a path relative to the table's folder; empty or missing where it has none |
| `product_id` | a judged product |
| `grade` | relevance: 0 none, higher is better; 1 where the column is missing or empty |

A query has a text, an image or both, on at least one of its rows. The table is of any format that imports read.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any

from fsspec.core import url_to_fs

from catalog.sources.entries import Row
from catalog.sources.table import Table
from core.errors import InvalidInput, Unavailable
from core.search import QueryPart
from core.types import EncoderInput

TEXTS = ("query_id", "text", "image", "product_id")
_NEEDED = ("query_id", "product_id")
_HIGHEST_GRADE = 1000
_KINDS = {(True, False): "texts", (False, True): "images", (True, True): "texts and images"}


@dataclass(frozen=True, slots=True)
class JudgedQuery:
    """A text, an image file or both, with the grades above 0 of products by id.

    Figures are computed for each `kind` apart, since results by text do not predict those by image.
    """

    query_id: str
    kind: str
    text: str | None
    image: bytes | None
    grades: Mapping[str, int]

    @property
    def inputs(self) -> tuple[EncoderInput, ...]:
        """Inputs for an encoder."""
        return tuple(each for each in (self.text, self.image) if each is not None)

    @property
    def parts(self) -> tuple[QueryPart, ...]:
        """Parts of the query; text and image have equal weights."""
        return tuple(QueryPart(content) for content in self.inputs)


def read_table(name: str, opened: Callable[[], IO[bytes]]) -> list[Row]:
    """Read the rows of a table; texts are stripped, empty ones are None, and grades are integers.

    Raises:
        InvalidInput: the file is of another kind, is damaged, or lacks a column or a value.
    """
    table = Table(name, opened)
    lacking = [column for column in _NEEDED if column not in table.columns]
    if lacking:
        raise InvalidInput(
            f"{name}: there is no column {lacking[0]!r}; columns: {', '.join(table.columns):.500}"
        )
    return [_row(f"{name}: row {number}", row) for number, row in enumerate(table.rows(), start=1)]


def _row(place: str, row: Row | InvalidInput) -> Row:
    if isinstance(row, InvalidInput):
        raise row.reworded(f"{place}: {row.message}")
    several = [column for column in (*TEXTS, "grade") if isinstance(row.get(column), list)]
    if several:
        raise InvalidInput(f"{place} has several values of {several[0]}")
    cleaned = {column: _text(row.get(column)) for column in TEXTS}
    for column in _NEEDED:
        if cleaned[column] is None:
            raise InvalidInput(f"{place} has no {column}")
    grade = _text(row.get("grade")) or "1"
    if not grade.isdecimal() or int(grade) > _HIGHEST_GRADE:
        raise InvalidInput(f"{place} has grade {grade:.100}; grades are whole numbers, 0 to {_HIGHEST_GRADE}")
    return cleaned | {"grade": int(grade)}


def _text(value: Any) -> str | None:
    if isinstance(value, float):
        # A column of whole numbers with gaps is one of floats, where the gaps are NaN.
        value = None if math.isnan(value) else int(value) if value.is_integer() else value
    return None if value is None else str(value).strip() or None


def read_labels(url: str) -> list[JudgedQuery]:
    """Read labeled queries from a file, by path or as fsspec names it, with the images beside it.

    Raises:
        InvalidInput: a file is missing or wrong, or a query contradicts itself, is empty or has no answer.
        Unavailable: the file system does not answer.
    """
    try:
        files, path = url_to_fs(url)
        rows = read_table(PurePosixPath(path).name, lambda: files.open(path, "rb"))
        by_query: dict[str, list[Row]] = {}
        for row in rows:
            by_query.setdefault(row["query_id"], []).append(row)
        folder = str(PurePosixPath(path).parent)
        return [_query(query_id, of_query, files, folder) for query_id, of_query in by_query.items()]
    except InvalidInput as error:
        raise error.at("queries") from None
    except (ValueError, ImportError) as error:
        raise InvalidInput(f"{url!r:.200} cannot be opened: {error}").at("queries") from None
    except (FileNotFoundError, IsADirectoryError):
        raise InvalidInput(f"there is no file {url!r:.200} of labeled queries").at("queries") from None
    except OSError as error:
        raise Unavailable(f"{url!r:.200} cannot be read: {type(error).__name__}") from error


def _query(query_id: str, rows: Sequence[Row], files: Any, folder: str) -> JudgedQuery:
    text, path = (_agreed(query_id, rows, column) for column in ("text", "image"))
    if text is None and path is None:
        raise InvalidInput(f"query {query_id!r:.100} has neither text nor image")
    grades: dict[str, int] = {}
    for row in rows:
        if grades.setdefault(row["product_id"], row["grade"]) != row["grade"]:
            raise InvalidInput(
                f"query {query_id!r:.100} grades product {row['product_id']!r:.100} twice, and differently"
            )
    relevant = {product_id: grade for product_id, grade in grades.items() if grade > 0}
    if not relevant:
        raise InvalidInput(f"no product answers query {query_id!r:.100}: all its grades are 0")
    image = None if path is None else _read_image(query_id, path, files, folder)
    return JudgedQuery(query_id, _KINDS[text is not None, path is not None], text, image, relevant)


def _agreed(query_id: str, rows: Sequence[Row], column: str) -> str | None:
    found = {row[column] for row in rows} - {None}
    if len(found) > 1:
        raise InvalidInput(f"the rows of query {query_id!r:.100} differ in {column}")
    return next(iter(found), None)


def _read_image(query_id: str, name: str, files: Any, folder: str) -> bytes:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "://" in name:
        raise InvalidInput(
            f"query {query_id!r:.100} names image {name!r:.200}; images are paths below the table's folder"
        )
    try:
        data: bytes = files.cat_file(f"{folder}/{path}")
    except (FileNotFoundError, IsADirectoryError):
        raise InvalidInput(f"query {query_id!r:.100}: there is no image {name!r:.200}") from None
    except OSError as error:
        raise Unavailable(f"image {name!r:.200} cannot be read: {type(error).__name__}") from error
    return data
